"""A process that has loaded everything before its time: `python -m orchestrator.rehearsal.standby ARGUMENTS`.

It becomes the `orchestrator` command with these arguments when a first byte comes by the pipe that they name for
control. An interpreter takes a second to load, or many on a machine that is busy, and a worker's restart is to take
none: in the simulated world it does not.
"""

from __future__ import annotations

import importlib
import os
import sys

from orchestrator.cluster import worker_process

COMMANDS = "orchestrator.cli.cluster"
"""By its name: nothing here knows the command line, which starts this as it starts itself."""


def main() -> None:
    arguments = sys.argv[1:]
    commands = importlib.import_module(COMMANDS)
    assert worker_process, "what a worker needs is loaded with it"
    descriptor = {name: int(arguments[arguments.index(f"--{name}-fd") + 1]) for name in ("ready", "control")}
    os.write(descriptor["ready"], b"loaded\n")
    if os.read(descriptor["control"], 1):  # else whoever was to say so has ended
        commands.app()


if __name__ == "__main__":
    main()
