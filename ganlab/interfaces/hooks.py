"""The hooks that a plugin implements. Each returns {name: class}; a spec uses the name under `type`.

A name has at most 100 letters (a to z, A to Z), digits, ".", "_" and "-".
"""

import pluggy

from ganlab.interfaces.callbacks import Callback
from ganlab.interfaces.losses import Loss
from ganlab.interfaces.metrics import Metric
from ganlab.interfaces.networks import Discriminator, Features, Generator
from ganlab.interfaces.schedules import Schedule
from ganlab.interfaces.sources import Source

hookspec = pluggy.HookspecMarker("ganlab")

hookimpl = pluggy.HookimplMarker("ganlab")
"""Marks a function of a plugin as a hook: `@ganlab.hookimpl`."""


@hookspec
def ganlab_generators() -> "dict[str, type[Generator]]":  # type: ignore[empty-body]
    """Returns networks that translate images of one domain into the other."""


@hookspec
def ganlab_discriminators() -> "dict[str, type[Discriminator]]":  # type: ignore[empty-body]
    """Returns networks that score images or embeddings."""


@hookspec
def ganlab_losses() -> "dict[str, type[Loss]]":  # type: ignore[empty-body]
    """Returns losses, the terms that the players minimise."""


@hookspec
def ganlab_schedules() -> "dict[str, type[Schedule]]":  # type: ignore[empty-body]
    """Returns schedules: the turns of each step and the optimizers."""


@hookspec
def ganlab_sources() -> "dict[str, type[Source]]":  # type: ignore[empty-body]
    """Returns sources of images."""


@hookspec
def ganlab_features() -> "dict[str, type[Features]]":  # type: ignore[empty-body]
    """Returns feature networks, which turn images into vectors."""


@hookspec
def ganlab_metrics() -> "dict[str, type[Metric]]":  # type: ignore[empty-body]
    """Returns metrics, which an evaluation measures."""


@hookspec
def ganlab_callbacks() -> "dict[str, type[Callback]]":  # type: ignore[empty-body]
    """Returns callbacks, which follow a run."""
