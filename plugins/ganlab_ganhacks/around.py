"""The base class of generators that wrap another generator and change the inputs of its layers."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

import ganlab


class Around(ganlab.Generator):
    """Wraps a generator.

    Raises ValueError if the wrapped generator has no convolution and no linear layer.

    Args:
        of: the wrapped generator.
    """

    stateful = True

    def __init__(self, of: ganlab.Generator) -> None:
        super().__init__()
        if not any(_layers(of)):
            raise ValueError(f"{type(of).__name__} has no convolution and no linear layer")
        self.of = of

    @contextmanager
    def reading(self, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """Makes each convolution and linear layer read `change(input)` inside the block."""
        # only inside the block: a layer that both directions share would otherwise have the hooks of both
        handles = [layer.register_forward_pre_hook(lambda _, inputs: change(*inputs)) for layer in _layers(self.of)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _layers(network: nn.Module) -> Iterator[nn.Module]:
    return (part for part in network.modules() if isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear))
