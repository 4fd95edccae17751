"""A generator around another, whose layers read something else than they are given."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

import ganlab


class Around(ganlab.Generator):
    """A generator around another.

    Raises ValueError where that has no convolution and no full layer.

    Args:
        of: the generator within.
    """

    stateful = True

    def __init__(self, of: ganlab.Generator) -> None:
        super().__init__()
        if not any(_layers(of)):
            raise ValueError(f"{type(of).__name__} has no convolution and no linear layer")
        self.of = of

    @contextmanager
    def reading(self, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """Within it, each convolution and full layer reads `change` of its input."""
        # no longer: ways may share a layer, and a copy's would change what the original's reads
        handles = [layer.register_forward_pre_hook(lambda _, inputs: change(*inputs)) for layer in _layers(self.of)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _layers(network: nn.Module) -> Iterator[nn.Module]:
    return (part for part in network.modules() if isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear))
