"""For the path of a test's processes: each of them plants the bug that the environment names, as `module:function`."""

import importlib
import os

if "PLANTED_BUG" in os.environ:
    module, _, function = os.environ["PLANTED_BUG"].partition(":")
    getattr(importlib.import_module(module), function)(setattr)
