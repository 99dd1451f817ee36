"""A coordinator on standby: it loads what it needs, and begins when it is told to.

`python -m orchestrator.cli.standing_by --control-fd N coordinator ...`: lines of JSON come by that descriptor, first
`{"standby": descriptor}`, which is closed when everything is loaded, and then `{"begin": true}`.
"""

from __future__ import annotations

import json
import os
import sys


def main() -> None:
    place = sys.argv.index("--control-fd")
    control = os.fdopen(int(sys.argv[place + 1]), encoding="ascii")
    del sys.argv[place : place + 2]
    loaded = json.loads(control.readline())["standby"]
    from orchestrator.cli import cluster
    from orchestrator.cluster import coordinator, decision_record, durability, services, store  # noqa: F401
    from orchestrator.scenario import schema  # noqa: F401

    os.close(loaded)
    if control.readline():  # nothing comes where nobody is left who could tell
        cluster.app()


if __name__ == "__main__":
    main()
