"""The commands that use trained runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ganlab.cli.options import AsJson
from ganlab.cli.process import errors, finish_imports, print_json, say

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, for example runs/emb.")]


def translate(
    run: RunFolder,
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUTS...", help='Pictures, folders of pictures, or patterns such as "photos/*.jpg".'),
    ],
    to: Annotated[str, typer.Option(metavar="DOMAIN", help="The domain to translate into: a or b.")],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="The folder for the translations. Default: translated/DOMAIN in the run folder."
        ),
    ] = None,
    size: Annotated[
        str,
        typer.Option(
            metavar="SIZE",
            help="run: the largest centred square, at the size that the run was trained at. keep: the whole picture at"
            " its own size.",
        ),
    ] = "run",
    checkpoint: Annotated[
        str,
        typer.Option(metavar="WHICH", help="last, or best: the checkpoint with the best monitor during training."),
    ] = "last",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there already.")] = False,
    grid: Annotated[
        bool, typer.Option("--grid", help="Also write grid.png: odd columns inputs, even columns translations.")
    ] = False,
    cycle: Annotated[
        bool, typer.Option("--cycle", help="Also write NAME.back.png, the translation translated back.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Translate pictures with a trained run.

    Uses the preprocessing and the weights of the run, averaged ones if it has them. The translations are PNG files with
    the names and subfolders of the inputs. A file that can't be read is named and left out.
    """
    with errors():
        from ganlab.cli.console import Console
        from ganlab.inference.files import translate

        finish_imports()
        with Console() as callback:
            found = translate(run, inputs, to, out, size, checkpoint, overwrite, grid, cycle, callback)
        if as_json:
            print_json(found)
            return
        source, target = found["direction"]
        count = counted(len(found["pictures"]), "picture")
        say(f"translated: {count} from {source} to {target}, step {found['step']}")
        say(f"  look at      {found['grid'] or found['folder']}")
        if found["left_out"]:
            say(f"  left out     {counted(len(found['left_out']), 'file')}")


def counted(count: int, what: str) -> str:
    """Returns a number of things: "1 file", "2 files"."""
    return f"{count} {what}{'' if count == 1 else 's'}"
