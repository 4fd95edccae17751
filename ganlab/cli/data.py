"""The commands about images."""

from __future__ import annotations

from typing import Annotated

import typer

from ganlab.cli.options import AsJson
from ganlab.cli.process import Commands, errors, print_json
from ganlab.errors import RunError, plural

app = typer.Typer(name="data", cls=Commands, no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def data() -> None:
    """Look after the images of experiments."""


@app.command()
def cache(
    prune: Annotated[bool, typer.Option("--prune", help="Remove all of them, except those in preparation.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare the pixels with their hashes, and remove damaged ones.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the prepared images: large sets that were decoded once for all later starts.

    What is removed is prepared again when a command needs it. A run that uses it is not disturbed.
    """
    with errors():
        from ganlab.cli.tables import show_prepared
        from ganlab.data import cache, store

        found = cache.prepared(verify)
        removed = [each for each in found if (prune or (verify and each.state == "damaged")) and cache.remove(each)]
        if as_json:
            print_json(
                {
                    "folder": str(store.folder()),
                    "sets": [e.as_json() for e in found],
                    "removed": [str(e.path) for e in removed],
                }
            )
        else:
            show_prepared(store.folder(), found, removed)
        if damaged := [str(each.path) for each in found if each.state == "damaged"]:
            raise RunError(f"{plural(len(damaged), 'prepared set')} had changed or lost bytes: {', '.join(damaged)}")
