"""The commands that use trained runs."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from ganlab.cli.options import AsJson, Checkpoint, completed_by
from ganlab.cli.process import errors, finish_imports, print_json, say
from ganlab.errors import SpecError, plural

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, for example runs/emb.")]


def translate(
    run: RunFolder,
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUTS", help='Pictures, folders of pictures, or patterns such as "photos/*.jpg".'),
    ],
    to: Annotated[
        str,
        typer.Option(
            metavar="DOMAIN", help="The domain to translate into: a or b.", autocompletion=completed_by("a", "b")
        ),
    ],
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
            help="run: a square of the size that the run was trained at, made as in training. keep: the whole picture"
            " at its own size.",
            autocompletion=completed_by("run", "keep"),
        ),
    ] = "run",
    checkpoint: Checkpoint = "last",
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
        from ganlab.display.terminal import Console
        from ganlab.inference.files import translate

        finish_imports()
        with Console() as callback:
            found = translate(run, inputs, to, out, size, checkpoint, overwrite, grid, cycle, callback)
        if as_json:
            print_json(found)
            return
        source, target = found["direction"]
        count = plural(len(found["pictures"]), "picture")
        say(f"translated: {count} from {source} to {target}, step {found['step']}")
        say(f"  look at      {found['grid'] or found['folder']}")
        if found["left_out"]:
            say(f"  left out     {plural(len(found['left_out']), 'file')}")


def demo(
    folders: Annotated[list[Path], typer.Argument(metavar="RUN", help="Run folders, shown side by side.")],
    host: Annotated[
        str,
        typer.Option(metavar="ADDRESS", help="The address to listen at; 0.0.0.0 lets other machines use the page."),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="N", min=0, max=65535, help="The port; 0 takes any free one.")] = 7860,
) -> None:
    """Open a page that translates pictures with trained runs.

    Drop a picture into it or take one: each run translates it, and the translation back. A slider chooses each
    run's checkpoint. No picture leaves the machine. Needs the extra ganlab[demo].
    """
    with errors():
        if find_spec("gradio") is None:
            raise SpecError("demo needs Gradio, which is not installed: pip install 'ganlab[demo]'")
        from ganlab.demo import serve

        def ready(address: str) -> None:
            say(f"demo: {', '.join(map(str, folders))}")
            say(f"  open it      {address}")
            say("  stop it      Ctrl-C")

        finish_imports()
        serve(folders, host, port, ready)


def report(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="RUN", help="Run folders and folders of comparisons. Default: the newest run in runs/."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the page of a run or a comparison again: report.html in its folder.

    A run writes its page at its end and whenever it draws samples, a comparison whenever a trial ends. The page is one
    file: it needs no server and no network.
    """
    with errors():
        from ganlab.comparison.page import write_report
        from ganlab.experiment import newest_run

        finish_imports()
        pages = [str(write_report(run)) for run in runs or [newest_run().path]]
        if as_json:
            print_json({"pages": pages})
        else:
            for page in pages:
                say(f"written: {page}")


def runs(
    where: Annotated[Path, typer.Argument(metavar="DIR", help="A folder of runs, at any depth, or a run.")] = Path(
        "runs"
    ),
    prune: Annotated[
        bool, typer.Option("--prune", help="Show what no command needs any more instead; delete nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --prune: delete it.")] = False,
    as_json: AsJson = False,
) -> None:
    """List runs: their states, steps, results and sizes.

    A run is running, finished, failed or interrupted; shared models are listed too. --prune lists the checkpoints of
    finished runs that are neither the last nor the best, and runs that stopped before their first checkpoint. A run
    that trains is left alone.
    """
    with errors():
        from ganlab.cli.tables import show_leftovers, show_runs
        from ganlab.runs import overview

        finish_imports()
        if yes and not prune:
            raise SpecError("--yes goes with --prune")
        if not prune:
            found = overview.list_runs(where)
            if as_json:
                print_json([status.as_json() for status in found])
            else:
                show_runs(where, found)
            return
        leftovers = overview.leftovers(where)
        for leftover in leftovers if yes else ():
            overview.delete(leftover)
        if as_json:
            print_json({"deleted": yes, "leftovers": [leftover.as_json() for leftover in leftovers]})
        else:
            show_leftovers(where, leftovers, deleted=yes)
