"""The coordinator and the worker's half as pure state machines: no clock, no I/O, no randomness of their own."""
