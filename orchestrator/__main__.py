"""`python -m orchestrator`."""

import os
import sys

# With -m the current directory comes first: a logging.py in it would replace that of the standard library. It moves to
# the end, where policies of the user's own are found, unless this package itself is found there.
if not sys.flags.safe_path and sys.path[0] != os.path.dirname(os.path.dirname(os.path.abspath(__file__))):
    sys.path.append(sys.path.pop(0))

from orchestrator.cli.app import main

main()
