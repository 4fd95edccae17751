"""LPIPS' arithmetic and its trunks, against the package `lpips` and the equation written out."""

from __future__ import annotations

import lpips
import numpy as np
import pytest
import torch
from torch import Tensor

from ganlab.evaluation.lpips import Trunk, distance


def random(*shape: int, seed: int = 0) -> Tensor:
    """Uniform in [0, 1), float64."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def trunk(shift_tolerant: bool = False) -> Trunk:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Trunk(shift_tolerant).double()


@pytest.mark.filterwarnings("ignore:The parameter 'pretrained' is deprecated")
@pytest.mark.filterwarnings("ignore:Arguments other than a weight enum")
@pytest.mark.parametrize("size", [(31, 31), (64, 48), (97, 70)])
def test_as_the_package_with_the_same_trunk(size: tuple[int, int]) -> None:
    with torch.random.fork_rng():
        reference = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False).double()
    own = trunk()
    # slices of torchvision's layers, which keep their numbers
    theirs = {name.partition(".")[2]: value for name, value in reference.net.state_dict().items()}
    own.features.load_state_dict(theirs)
    weights = [reference.get_parameter(f"lin{layer}.model.1.weight").flatten() for layer in range(5)]
    a, b = random(3, 3, *size) * 2 - 1, random(3, 3, *size, seed=1) * 2 - 1
    with torch.no_grad():
        expected = reference(a, b).flatten()
        found = distance(own(a), own(b), weights)
    assert expected.min() > 1e-5
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=0)


def test_the_equation_written_out() -> None:
    shapes = [(2, 3, 4, 5), (2, 6, 1, 2)]
    # some norms are as small as epsilon, so that epsilon halves the unit vectors
    small = torch.tensor([1.0, 1e-10], dtype=torch.float64)[:, None, None, None]
    ours = [random(*shape, seed=shape[1]) * small for shape in shapes]
    theirs = [random(*shape, seed=9 + shape[1]) for shape in shapes]
    weights = [random(shape[1], seed=99) for shape in shapes]
    expected = np.zeros(2)
    for our, their, weight in zip(ours, theirs, weights, strict=True):
        count, channels, height, width = our.shape
        for n, h, w in np.ndindex(count, height, width):
            y, other = ([x[n, c, h, w].item() for c in range(channels)] for x in (our, their))
            lengths = [sum(value**2 for value in vector) ** 0.5 + 1e-10 for vector in (y, other)]
            terms = [weight[c].item() * (y[c] / lengths[0] - other[c] / lengths[1]) ** 2 for c in range(channels)]
            expected[n] += sum(terms) / (height * width)
    np.testing.assert_allclose(distance(ours, theirs, weights).numpy(), expected, rtol=1e-12)


def test_layers_must_pair_up() -> None:
    layer = random(1, 3, 2, 2)
    with pytest.raises(ValueError, match="zip"):
        distance([layer, layer], [layer, layer], [random(3)])


def test_takes_gradients_where_nothing_is_activated() -> None:
    ours = torch.zeros(1, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    distance([ours], [random(1, 3, 2, 2)], [random(3)]).sum().backward()
    assert ours.grad is not None
    assert ours.grad.isfinite().all()


@pytest.mark.parametrize("shift_tolerant", [False, True])
def test_trunk_is_differentiable(shift_tolerant: bool) -> None:
    own = trunk(shift_tolerant).requires_grad_(False)
    weights = [torch.ones(channels, dtype=torch.float64) for channels in (64, 192, 384, 256, 256)]
    target = own(random(1, 3, 40, 36, seed=1) * 2 - 1)
    at, direction = random(1, 3, 40, 36) * 2 - 1, random(1, 3, 40, 36, seed=2) - 0.5

    def loss(images: Tensor) -> Tensor:
        return distance(own(images), target, weights).sum()

    at.requires_grad_()
    (gradient,) = torch.autograd.grad(loss(at), at)
    with torch.no_grad():
        step = 1e-6
        expected = (loss(at + step * direction) - loss(at - step * direction)) / (2 * step)
    assert abs(expected.item()) > 1e-4
    torch.testing.assert_close((gradient * direction).sum(), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize(("shift_tolerant", "least"), [(False, 31), (True, 21)])
def test_smallest_images(shift_tolerant: bool, least: int) -> None:
    own = trunk(shift_tolerant)
    with torch.no_grad():
        sizes = [tuple(activations.shape[1:]) for activations in own(random(1, 3, least, least))]
        for height, width in ((least - 1, least), (least, least - 1)):
            with pytest.raises(RuntimeError):
                own(random(1, 3, height, width))
    assert [channels for channels, _, _ in sizes] == [64, 192, 384, 256, 256]
    # pixels as the strides and borders give them: (h - 7) / 4 + 1 = 7, 3, 1, or (h - 5) / 2 + 1 = 9, 5, 3
    assert [height for _, height, _ in sizes] == ([9, 5, 3, 3, 3] if shift_tolerant else [7, 3, 1, 1, 1])
