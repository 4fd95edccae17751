"""`python -m ganlab`."""

from ganlab.cli.commands import main

main()
