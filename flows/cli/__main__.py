"""`python -m flows.cli` is the command `cotpipe`."""

from flows.cli.main import main

main()
