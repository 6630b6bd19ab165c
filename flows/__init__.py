"""Prefect flows and the `cotpipe` command."""

import atexit
import gc

# With Prefect and torch loaded, the interpreter spends 1.5 s at its end looking for garbage in memory
# that the system takes back anyway.
atexit.register(gc.freeze)
