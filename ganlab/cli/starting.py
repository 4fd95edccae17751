"""The commands that start an experiment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ganlab.cli.options import AsJson
from ganlab.cli.process import errors, print_json, say


def experiments(as_json: AsJson = False) -> None:
    """List the experiments that ship with ganlab.

    Each is the name of a spec: `ganlab run emb`, `ganlab check paper/emb`, `"extends": "emb"`. A file of that name in
    the working folder comes first.
    """
    with errors():
        from ganlab.cli.tables import show_experiments
        from ganlab.spec.shipped import experiments as shipped

        if as_json:
            print_json([{**each._asdict(), "path": str(each.path)} for each in shipped()])
        else:
            show_experiments(shipped())


def init(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The experiment's name; NAME.json is written.")],
    a: Annotated[
        Path, typer.Option("--a", metavar="DIR", help="A folder of pictures of domain a, photos for example.")
    ],
    b: Annotated[
        Path, typer.Option("--b", metavar="DIR", help="A folder of pictures of domain b, comics for example.")
    ],
    as_json: AsJson = False,
) -> None:
    """Write a spec for two folders of pictures.

    The image size, the batch and the share of pictures to hold out fit what is in the folders.
    """
    with errors():
        from ganlab.data import starter
        from ganlab.display.terminal import Console

        path, spec = starter.init(name, a, b, Console().warn)
        if as_json:
            print_json({"file": str(path), "spec": spec})
            return
        data = spec["data"]
        held = f"{data['holdout']:.0%} of the pictures held out"
        say(f"written: {path}: {data['size']} x {data['size']} pixels, batch {data['batch']}, {held}")
        say(f"  look at it   ganlab check {name}")
        say(f"  train it     ganlab run {name}")
