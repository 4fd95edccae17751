"""The commands about images: `ganlab data`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ganlab.cli.options import AsJson, Set
from ganlab.cli.process import Commands, errors, finish_imports, print_json, say
from ganlab.errors import RunError, plural

app = typer.Typer(name="data", cls=Commands, no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def options() -> None:
    """Inspect the images of an experiment, and manage prepared images."""


@app.command()
def inspect(
    data: Annotated[
        list[str],
        typer.Argument(
            metavar="SPEC|DIR...",
            help="A spec or a run folder; or one or two folders of images, domain a and domain b; or one folder with"
            " both domains, as --data takes it.",
        ),
    ],
    set_: Set = None,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The file of the page.")] = Path("inspection.html"),
    write_filter: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Also write the list of files to leave out, for the option `exclude` of the source `folder`.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Find what would spoil a training: damaged files, duplicates, leaks into the held-out images, borders.

    Also finds images with hardly any contrast and tiny ones, and compares the sizes, brightness and colours of the
    domains. Writes a page with examples. Changes no image.
    """
    with errors():
        from ganlab.cli.tables import show_inspection
        from ganlab.display.terminal import Console
        from ganlab.inspection.inspecting import inspect_data

        finish_imports()
        with Console() as callback:
            found = inspect_data(data, set_ or (), out, write_filter, callback)
        if as_json:
            print_json(found)
            return
        show_inspection(found)
        say(f"  look at      {found['page']}")
        if found["filter"] is not None:
            listed = found["filter"]
            say(f"  leave out    {plural(sum(listed['files'].values()), 'file')}, listed in {listed['file']}")
            for domain in listed["files"]:
                say(f"  train with   --set data.{domain}.exclude={listed['file']}")


@app.command()
def cache(
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove all prepared images, except those in preparation.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare the pixels with their hashes, and remove damaged ones.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the prepared images: large sets that were decoded once for all later starts.

    Removed images are prepared again when a command needs them. A run that uses them is not disturbed.
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
