"""Options that several commands have, and one that takes one or two folders."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from ganlab.errors import SpecError

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]

Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a value of the spec, for example --set losses.cycle.weight=10. May be given several times.",
    ),
]

Checkpoint = Annotated[
    str,
    typer.Option(
        metavar="WHICH", help="last; best: the checkpoint with the best monitor during training; or the step of one."
    ),
]


def completed_by(*values: str) -> Callable[[], list[str]]:
    """Returns the function that tells the shell the values of an option."""
    return lambda: list(values)


Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="DIR",
        help="Take the images of both domains from this folder. It has trainA and trainB, train with two folders, or"
        " just two folders. The images of testA and testB, or of test, are held out. A folder with images and no"
        " folders is domain a alone.",
    ),
]

Swap = Annotated[bool, typer.Option("--swap", help="Exchange the domains a and b that are found in --data.")]


def with_data(changes: Sequence[str] | None, data: Path | None, swap: bool) -> list[str]:
    """Returns the changes of --set with those of --data and --swap."""
    # as JSON, since a folder may be named 2024
    own = [] if data is None else [f"data.root={json.dumps(str(data))}"]
    return [*(changes or ()), *own, *(["data.swap=true"] if swap else [])]


IMAGES = "--images"


class OneOrTwo(TyperCommand):
    """A command with the option --images, which takes one folder or two folders."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        words: list[str] = []
        for place, word in enumerate(args):
            # options take a fixed number of words, but may be repeated
            if place > 1 and args[place - 2] == IMAGES and not word.startswith("-"):
                words.append(IMAGES)
            words.append(word)
        return super().parse_args(ctx, words)


def one_or_two(folders: Sequence[Path]) -> Path | tuple[Path, Path] | None:
    """Returns the values of --images: None, one or two. Raises SpecError if there are more."""
    if len(folders) > 2:
        raise SpecError(f"--images names {len(folders)} folders; at most two are allowed")
    return (folders[0], folders[1]) if len(folders) == 2 else folders[0] if folders else None
