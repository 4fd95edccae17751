"""The hooks of a plugin. Each returns `{name: class}`; the name is what a spec says under `type`."""

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from ganlab.interfaces import Discriminator, Features, Generator, Loss, Metric, Schedule, Source

hookspec = pluggy.HookspecMarker("ganlab")
hookimpl = pluggy.HookimplMarker("ganlab")
"""Marks a plugin's function as a hook: `@ganlab.hookimpl`."""


@hookspec
def ganlab_generators() -> "dict[str, type[Generator]]":  # type: ignore[empty-body]
    """Networks that translate images of one domain into the other."""


@hookspec
def ganlab_discriminators() -> "dict[str, type[Discriminator]]":  # type: ignore[empty-body]
    """Networks that score images, or embeddings."""


@hookspec
def ganlab_losses() -> "dict[str, type[Loss]]":  # type: ignore[empty-body]
    """Terms that the players minimise."""


@hookspec
def ganlab_schedules() -> "dict[str, type[Schedule]]":  # type: ignore[empty-body]
    """Who moves when, with which optimiser."""


@hookspec
def ganlab_sources() -> "dict[str, type[Source]]":  # type: ignore[empty-body]
    """Sets of images."""


@hookspec
def ganlab_features() -> "dict[str, type[Features]]":  # type: ignore[empty-body]
    """Networks that turn images into vectors."""


@hookspec
def ganlab_metrics() -> "dict[str, type[Metric]]":  # type: ignore[empty-body]
    """What an evaluation measures."""
