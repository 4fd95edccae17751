"""Begins a run with the weights of another run, or of a shared model."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ganlab.engine.trainer import Trainer
from ganlab.errors import GanlabError, RunError, SpecError
from ganlab.files import hashes
from ganlab.runs import checkpoint, shared
from ganlab.runs.folder import RunFolder
from ganlab.spec.models import Json, Spec
from ganlab.system.build import build_schedule


class InitialWeights(NamedTuple):
    """A checkpoint of another run, or a shared model."""

    folder: RunFolder
    step: int
    sha256: dict[str, str]
    """{name of a file of weights: its SHA-256}."""

    def as_json(self) -> Json:
        """Returns what environment.json says of the weights."""
        return {"run": str(self.folder.path.resolve()), "step": self.step, "sha256": self.sha256}


def initial_weights(folder: RunFolder, choose: Callable[[RunFolder, Spec], int]) -> InitialWeights:
    """Returns the checkpoint that `choose` picks in a run folder, after comparing it with its manifest.

    `choose` takes the folder and its spec and returns a step. Raises SpecError if it can't be used.
    """
    if not folder.exists:
        raise SpecError(f"init.run: {folder.path} is not a run: it has no spec.json")
    try:
        spec = folder.spec_here()
        step = choose(folder, spec)
        if folder.shared:
            files = hashes(shared.weights(folder.path, direction) for direction in spec.directions)
            return InitialWeights(folder, step, files)
        manifest = checkpoint.verify(folder.checkpoints, step, folder.trained(spec), build_schedule(spec).steps)
    except (GanlabError, OSError) as error:
        raise SpecError(f"init.run: {error}") from error
    name = checkpoint.NETWORKS
    return InitialWeights(folder, step, {name: manifest["files"][name]["sha256"]})


def begin_with(trainer: Trainer, initial: InitialWeights, warn: Callable[[str], None]) -> None:
    """Loads the weights into the trainer's networks of the same names.

    Generators get averaged weights if there are any; their own averages follow them at the first step. A discriminator
    that the other run does not have keeps its random weights, and is named to `warn`. Raises SpecError if a generator
    is missing, or if weights do not fit.
    """
    path = checkpoint.path_of(initial.folder.checkpoints, initial.step)
    try:
        if initial.folder.shared:
            _begin_with_shared(trainer, initial.folder, warn)
            return
        there = checkpoint.network_names(path)
        for name, network in trainer.system.networks.modules.items():
            kind, _, rest = name.partition("/")
            averaged = f"ema/{rest}"
            source = averaged if kind == "generator" and averaged in there else name
            if source in there:
                checkpoint.load_networks(path, {source: network})
            elif kind == "generator":
                raise SpecError(f"init.run: {initial.folder.path} has no {name}")
            else:
                warn(f"{initial.folder.path} has no {name}, which begins with random weights")
    except RunError as error:
        raise SpecError(f"init.run: {error}") from error


def _begin_with_shared(trainer: Trainer, folder: RunFolder, warn: Callable[[str], None]) -> None:
    for name, network in trainer.system.networks.modules.items():
        kind, _, direction = name.partition("/")
        if kind == "generator":
            shared.load(folder.path, {direction: network})
        else:
            warn(f"{folder.path} has no {name}, which begins with random weights")
