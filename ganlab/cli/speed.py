"""The command that measures speed: `ganlab bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ganlab.cli.options import AsJson, Data, Set, Swap, with_data
from ganlab.cli.process import errors, finish_imports, print_json


def bench(
    spec: Annotated[
        Path,
        typer.Argument(
            metavar="[SPEC]", help="A spec file, the name of a shipped experiment, or a run folder. Default: emb."
        ),
    ] = Path("emb"),
    set_: Set = None,
    data: Data = None,
    swap: Swap = False,
    steps: Annotated[int, typer.Option(min=2, metavar="N", help="The number of steps to time.")] = 50,
    tune: Annotated[
        bool,
        typer.Option(
            "--tune",
            help="Instead, find the fastest precision, and on a GPU whether compiled networks are faster. From then on,"
            " auto in runtime.precision and runtime.compile means this result.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Measure how fast a spec trains on this machine.

    Prints images a second, the time of each turn, operators, memory, and the share of the device's peak that a step
    reaches. The peak is that of a product of two matrices and of a copy, measured after the training. Trains on
    the first images of the spec's data and writes nothing but what --tune keeps. Give it a quiet machine.
    """
    with errors():
        from ganlab import experiment
        from ganlab.cli.tables import show_bench, show_tuning
        from ganlab.display.terminal import Console

        finish_imports()
        measure, show = (experiment.tune, show_tuning) if tune else (experiment.bench, show_bench)
        with Console() as callback:
            found = measure(spec, steps, with_data(set_, data, swap), callback)
        print_json(found) if as_json else show(found)
