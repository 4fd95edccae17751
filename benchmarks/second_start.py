"""Runs ganlab's command line; small sets are prepared too, and every step is printed: second_start.py run SPEC."""

from ganlab.cli.commands import main
from ganlab.data import store
from ganlab.display import terminal

store.KEPT_FROM = 0
terminal.QUIET_SECONDS = 0

if __name__ == "__main__":
    main()
