"""A process that has loaded everything before its time: `python -m orchestrator.rehearsal.standby ARGUMENTS`.

It becomes the `orchestrator` command with these arguments when a first byte comes by the pipe that they name for
control. An interpreter takes a second to load, or many on a machine that is busy, and a worker's restart is to take
none: in the simulated world it does not.
"""

from __future__ import annotations

import importlib
import os
import sys

WORKER = "orchestrator.cluster.worker_process"
COMMANDS = "orchestrator.cli.cluster"
"""By its name: the command line starts rehearsals, which know nothing of it but how to start it."""


def main() -> None:
    arguments = sys.argv[1:]
    _, commands = (importlib.import_module(name) for name in (WORKER, COMMANDS))
    os.write(_descriptor(arguments, "--ready-fd"), b"loaded\n")
    if os.read(_descriptor(arguments, "--control-fd"), 1):  # else whoever was to say so has ended
        commands.app()


def _descriptor(arguments: list[str], option: str) -> int:
    return int(arguments[arguments.index(option) + 1])


if __name__ == "__main__":
    main()
