"""The commands that make shared models."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from ganlab.cli.options import AsJson, Checkpoint
from ganlab.cli.process import errors, finish_imports, print_json, say
from ganlab.cli.using import RunFolder
from ganlab.errors import SpecError

PROGRAMS = ("cyclegan",)
"""The programs that trained what can be imported."""

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the shared model that is in the folder.")]


def export(
    run: RunFolder,
    out: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to write.")],
    checkpoint: Checkpoint = "last",
    onnx: Annotated[
        bool, typer.Option("--onnx", help="Also write ab.onnx and ba.onnx, and compare them with PyTorch.")
    ] = False,
    license_: Annotated[
        str | None, typer.Option("--license", metavar="ID", help="The licence for the model card, for example mit.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Make a folder of a run that can be shared as it is.

    It holds the weights, the spec without paths of this machine, a model card for model hubs, the results of the
    checkpoint and a grid of held-out images: look at it before you share it. `ganlab translate DIR` works on it.
    """
    with errors():
        from ganlab.display.terminal import Console
        from ganlab.sharing.export import export

        finish_imports()
        with Console() as callback:
            found = export(run, out, checkpoint, onnx, license_, overwrite, callback)
        if as_json:
            print_json(found)
            return
        say(f"exported: step {found['step']} of {run}, in {found['folder']}")
        say(f"  look at      {Path(found['folder']) / 'README.md'}")
        for direction, exported in found["onnx"].items():
            path = Path(found["folder"]) / f"{direction}.onnx"
            near = f"{exported['difference']:.1e} from PyTorch in float32, {exported['exact']:.1e} in float64"
            say(f"  ONNX         {path}: at most {near}")


def import_(
    program: Annotated[str, typer.Argument(metavar="PROGRAM", help="The program that trained: cyclegan.")],
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATHS", help="One or two checkpoints, or a folder that holds them.")
    ],
    out: Annotated[Path, typer.Option(metavar="RUN", help="The folder to write.")],
    size: Annotated[
        int, typer.Option(min=4, max=4096, metavar="N", help="Height and width in pixels to resize pictures to.")
    ] = 256,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Import generators that another program has trained.

    PROGRAM is cyclegan for checkpoints of junyanz/pytorch-CycleGAN-and-pix2pix or of
    taesungp/contrastive-unpaired-translation (CUT), with the generators resnet_6blocks and resnet_9blocks:
    latest_net_G_A.pth, latest_net_G_B.pth, latest_net_G.pth. No code in the files is run. The result is a shared model,
    which translates, exports and is measured: `ganlab eval RUN --inputs DIR --images DIR`.
    """
    with errors():
        from ganlab.components.options import nearest
        from ganlab.sharing.import_cyclegan import import_cyclegan

        finish_imports()
        if program not in PROGRAMS:
            raise SpecError(f"import: {program!r} is not known{nearest(program, PROGRAMS)}")
        found = import_cyclegan(paths, out, size, overwrite)
        if as_json:
            print_json(
                {
                    "folder": str(found.folder),
                    "directions": list(found.spec.directions),
                    "generator": found.spec.generator,
                }
            )
            return
        say(f"imported: {' and '.join(found.spec.directions)}, in {found.folder}")
        to = found.spec.directions[0][1]
        say(f"  use it       {shlex.join(['ganlab', 'translate', str(found.folder), 'PICTURES', '--to', to])}")
        say(f"  measure it   {shlex.join(['ganlab', 'eval', str(found.folder)])} --inputs PICTURES --images REAL")
