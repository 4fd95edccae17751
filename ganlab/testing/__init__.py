"""What the engine relies on, checked in a plugin author's own test: `check_loss(Hinge, margin=2.0)`.

A component is given as in a spec, by its class and its options; a nested one by its class, and where it isn't given a
simple one stands in. `images` is the shape of both domains' images. A broken promise raises AssertionError with one
sentence, which says what was promised and shows the numbers. `Unavailable` passes: where weights are missing, nothing
can be said.
"""

from ganlab.testing.losses import check_loss
from ganlab.testing.networks import check_discriminator, check_generator
from ganlab.testing.numbers import check_features, check_metric
from ganlab.testing.schedules import check_schedule
from ganlab.testing.sources import check_source

__all__ = [
    "check_discriminator",
    "check_features",
    "check_generator",
    "check_loss",
    "check_metric",
    "check_schedule",
    "check_source",
]
