"""Checks for a plugin author's own tests: `check_loss(Hinge, margin=2.0)`.

Each check builds the component as the core does and tests what training and evaluation rely on. Pass the class, and its
options as in a spec. A nested component is passed as its class, or as (class, {option: value}); if it is left out, a
simple one is used. `images` is the shape of both domains' images. `check_loss` takes the networks of a small system
too.

A failed requirement raises AssertionError with one sentence that states the requirement and what was found.
`ganlab.Unavailable` (missing weights) is not a failure: the check passes it on.
"""

from ganlab.testing.callbacks import check_callback
from ganlab.testing.losses import check_loss
from ganlab.testing.metrics import check_features, check_metric
from ganlab.testing.networks import check_discriminator, check_generator
from ganlab.testing.schedules import check_schedule
from ganlab.testing.sources import check_source

__all__ = [
    "check_callback",
    "check_discriminator",
    "check_features",
    "check_generator",
    "check_loss",
    "check_metric",
    "check_schedule",
    "check_source",
]
