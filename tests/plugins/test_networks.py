"""The shipped networks: sizes, shapes, and each layer against its formula."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from ganlab_cyclegan.discriminator import Patch
from ganlab_embedding import EmbeddingDiscriminator
from ganlab_large_kernel.generator import Depthwise, LargeKernel
from ganlab_resnet.blocks import Bottleneck, Residual
from ganlab_resnet.folded import Fold
from ganlab_resnet.generator import Resnet
from ganlab_resnet.layers import InstanceNorm, ReflectionPad, mirrored
from torch import Tensor, nn
from torch.nn.functional import conv2d, gelu, instance_norm, pad, relu
from torch.utils.flop_counter import FlopCounterMode

from ganlab.interfaces.networks import Discriminator, Domain, Generator

Makes = Callable[[Domain, Domain], Generator]


def domain(name: str = "a", size: int = 256, channels: int = 3, width: int | None = None) -> Domain:
    return Domain(name, channels, size, width or size)


def on_meta(make: Callable[[], nn.Module]) -> nn.Module:
    """Makes a full-size network that has shapes but no memory."""
    with torch.device("meta"):
        return make()


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def stirred(module: nn.Module) -> Any:
    """Returns the network in float64, with larger biases and with weights that keep the size of activations."""
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in module.double().parameters():
            drawn = torch.randn(p.shape, generator=random, dtype=p.dtype)
            p.copy_(drawn / p[0].numel() ** 0.5 if p.dim() > 1 else 0.5 + 0.2 * drawn)
    return module


@pytest.mark.parametrize(
    ("make", "count"),
    [
        # the counts that junyanz/pytorch-CycleGAN-and-pix2pix prints: 11.378 M, 7.838 M, 2.765 M
        (lambda: Resnet(domain(), domain("b")), 11_378_179),
        (lambda: Resnet(domain(), domain("b"), blocks=6), 7_837_699),
        (lambda: Patch(domain()), 2_764_737),
    ],
    ids=["resnet 9", "resnet 6", "patch"],
)
def test_parameters_of_the_papers_networks(make: Callable[[], nn.Module], count: int) -> None:
    network = on_meta(make)
    assert parameters(network) == count
    assert f"{count:,}" in re.sub(r"\s+", " ", inspect.getdoc(type(network)) or "")


def outside_blocks(width: int) -> int:
    """Returns the weights and biases of all layers except the blocks, for 3 channels in and out."""
    layers = [(3, width, 7), (width, 2 * width, 3), (2 * width, 4 * width, 3)]
    layers += [(4 * width, 2 * width, 3), (2 * width, width, 3), (width, 3, 7)]
    return sum(inner * outer * kernel**2 + outer for inner, outer, kernel in layers)


@pytest.mark.parametrize(("width", "blocks", "kernel"), [(64, 9, 7), (16, 4, 7), (8, 3, 11)])
def test_parameters_of_larger_kernels(width: int, blocks: int, kernel: int) -> None:
    c, e = 4 * width, 3
    dense = on_meta(lambda: LargeKernel(domain(), domain("b"), width, blocks, kernel=kernel))
    depthwise = on_meta(
        lambda: LargeKernel(domain(), domain("b"), width, blocks, kernel=kernel, form="depthwise", expansion=e)
    )
    assert parameters(dense) == outside_blocks(width) + blocks * 2 * (c * c * kernel**2 + c)
    mixing = c * e * c + e * c + e * c * c + c
    assert parameters(depthwise) == outside_blocks(width) + blocks * (c * kernel**2 + c + mixing)


@pytest.mark.parametrize(
    ("row", "make"),
    [
        ("resnet, 3x3", lambda: Resnet(domain(), domain("b"))),
        ("dense, 7x7", lambda: LargeKernel(domain(), domain("b"))),
        ("depthwise, 7x7", lambda: LargeKernel(domain(), domain("b"), form="depthwise")),
    ],
)
def test_numbers_of_larger_kernels_docstring(row: str, make: Callable[[], nn.Module]) -> None:
    network = on_meta(make)
    with FlopCounterMode(display=False) as counter:
        network(torch.empty(1, 3, 256, 256, device="meta"))
    written = re.search(rf"\| {row} +\| ([\d,]+) +\| ([\d.]+) \* 10\^9 +\|", LargeKernel.__doc__ or "")
    assert written is not None
    assert int(written[1].replace(",", "")) == parameters(network)
    assert float(written[2]) == round(counter.get_total_flops() / 1e9, 1)


GENERATORS: dict[str, Makes] = {
    "resnet": lambda a, b: Resnet(a, b, 4, 2),
    "resnet without blocks": lambda a, b: Resnet(a, b, 4, 0),
    "resnet, one block": lambda a, b: Resnet(a, b, 4, 1, norm="batch"),
    "resnet, resize": lambda a, b: Resnet(a, b, 4, 3, norm="none", upsampling="resize"),
    "resnet, kernel 1": lambda a, b: Resnet(a, b, 4, 2, kernel=1),
    "large kernel": lambda a, b: LargeKernel(a, b, 4, 2, kernel=5),
    "depthwise": lambda a, b: LargeKernel(a, b, 4, 2, kernel=5, form="depthwise"),
    "folded": lambda a, b: Resnet(a, b, 4, 2, ends="folded"),
    "folded, bottleneck": lambda a, b: LargeKernel(a, b, 4, 3, kernel=5, ends="folded", form="bottleneck"),
}


@pytest.mark.parametrize(("height", "width"), [(16, 16), (24, 16), (32, 32), (64, 40)])
@pytest.mark.parametrize("make", GENERATORS.values(), ids=GENERATORS.keys())
def test_shapes_and_range_of_generators(make: Makes, height: int, width: int) -> None:
    a, b = domain("a", height, 1, width), domain("b", height, 3, width)
    for source, target in ((a, b), (b, a)):
        generator = stirred(make(source, target))
        x = noise(2, source.channels, height, width)
        features = generator.features(x)
        y = generator.decode(features[-1])
        assert features[-1].shape == (2, 16, height // 4, width // 4)
        assert y.shape == (2, target.channels, height, width)
        assert y.abs().max() <= 1
        assert y.std() > 0.1
        torch.testing.assert_close(generator(x), y)
        torch.testing.assert_close(generator.encode(x), features[-1])


@pytest.mark.parametrize("blocks", [0, 1, 4, 9])
def test_the_embedding_comes_after_half_of_the_blocks(blocks: int) -> None:
    generator = Resnet(domain(), domain("b"), 2, blocks)
    shapes = [f.shape[1:] for f in generator.features(torch.zeros(1, 3, 32, 32))]
    assert shapes == [(2, 32, 32), (4, 16, 16), *[(8, 8, 8)] * (1 + blocks // 2)]
    assert sum(isinstance(m, Residual) for m in generator.decoder.modules()) == blocks - blocks // 2


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("size", [16, 32, 64])
def test_shapes_of_patch(layers: int, size: int) -> None:
    discriminator = Patch(domain(size=size), 4, layers)
    if size // 2**layers > 2:
        side = size // 2**layers - 2
        assert discriminator(torch.zeros(2, 3, size, size)).shape == (2, 1, side, side)


@pytest.mark.parametrize("layers", [0, 1, 2, 3])
@pytest.mark.parametrize(("height", "width"), [(16, 16), (5, 7)])
def test_shapes_of_the_embedding_discriminator(layers: int, height: int, width: int) -> None:
    shape = Domain("embedding", 6, height, width)
    discriminator = EmbeddingDiscriminator(shape, 4, layers)
    assert discriminator.sees == "embeddings"
    expected = (2, 1, math.ceil(height / 2**layers), math.ceil(width / 2**layers))
    assert discriminator(torch.zeros(2, 6, height, width)).shape == expected


@pytest.mark.parametrize(("layers", "field"), [(1, 16), (2, 34), (3, 70)])
def test_a_score_of_patch_sees_a_patch(layers: int, field: int) -> None:
    """One score has a gradient at the pixels of its patch. There are no norms, which would read the whole image."""
    discriminator = stirred(Patch(domain(size=128), 3, layers, norm="none"))
    x = noise(1, 3, 128, 128).requires_grad_()
    scores = discriminator(x)
    middle = scores.shape[-1] // 2
    (gradient,) = torch.autograd.grad(scores[0, 0, middle, middle], x)
    seen = gradient.abs().sum(dim=(0, 1)).nonzero()
    assert (seen.amax(dim=0) - seen.amin(dim=0) + 1).tolist() == [field, field]


NETWORKS: dict[str, Callable[[str], Generator | Discriminator]] = {
    "resnet": lambda norm: Resnet(domain(), domain("b"), 4, 2, norm=norm),  # type: ignore[arg-type]
    "dense": lambda norm: LargeKernel(domain(), domain("b"), 4, 2, norm=norm, kernel=5),  # type: ignore[arg-type]
    "depthwise": lambda norm: LargeKernel(domain(), domain("b"), 4, 2, norm, 5, form="depthwise"),  # type: ignore[arg-type]
    "bottleneck": lambda norm: Resnet(domain(), domain("b"), 4, 2, norm=norm, form="bottleneck"),  # type: ignore[arg-type]
    "patch": lambda norm: Patch(domain(), 4, 2, norm=norm),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS.keys())
def test_initial_weights(make: Callable[[str], nn.Module], norm: str) -> None:
    torch.manual_seed(0)
    network = make(norm)
    filters = [m.weight.flatten() for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    scales = [m.weight.flatten() for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    for values, mean in ((filters, 0.0), (scales, 1.0)):
        if values:
            drawn = torch.cat(values)
            error = 5 * 0.02 / len(drawn) ** 0.5
            assert abs(drawn.mean() - mean) < error
            assert abs(drawn.std() - 0.02) < error
    assert bool(scales) == (norm == "batch")
    biases = [p for name, p in network.named_parameters() if name.endswith("bias")]
    assert biases
    assert all(not b.any() for b in biases)


@pytest.mark.parametrize("shape", [(1, 1, 2, 2), (3, 4, 5, 7), (2, 8, 16, 16)])
def test_instance_norm(shape: tuple[int, ...]) -> None:
    """The norm and its first and second derivatives equal torch's."""
    x, direction = noise(*shape).mul(3).add(2).requires_grad_(), noise(*shape, seed=1)
    found = []
    for norm in (InstanceNorm(shape[1]), instance_norm):
        y = norm(x)
        (gradient,) = torch.autograd.grad((y * direction).sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(gradient.square().sum(), x)
        found.append((y, gradient, second))
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-11)
    mean, variance = x.mean(dim=(2, 3), keepdim=True), x.var(dim=(2, 3), keepdim=True, correction=0)
    torch.testing.assert_close(found[0][0], (x - mean) / (variance + 1e-5).sqrt(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("width", [0, 1, 3])
def test_mirrored_borders(width: int) -> None:
    """The slices for CUDA, the layer and torch's reflection give the same values and gradients."""
    x = noise(2, 3, 5, 4).requires_grad_()
    direction = noise(2, 3, 5 + 2 * width, 4 + 2 * width, seed=1)
    found = []
    for padding in (lambda x: mirrored(x, width), ReflectionPad(width), lambda x: pad(x, [width] * 4, mode="reflect")):
        y = padding(x)
        found.append((y, *torch.autograd.grad((y * direction).sum(), x)))
    for other in found[:2]:
        torch.testing.assert_close(other, found[2], rtol=0, atol=1e-14)


def reflected(x: Tensor, layer: nn.Conv2d, **more: Any) -> Tensor:
    border = layer.kernel_size[0] // 2
    return conv2d(pad(x, [border] * 4, mode="reflect"), layer.weight, layer.bias, **more)


def convolutions(module: nn.Module) -> list[nn.Conv2d]:
    return [m for m in module.modules() if isinstance(m, nn.Conv2d)]


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_residual_block(kernel: int) -> None:
    block, x = stirred(Residual(4, kernel, "instance", bias=True)), noise(2, 4, 8, 8)
    first, second = convolutions(block)
    expected = x + instance_norm(reflected(relu(instance_norm(reflected(x, first))), second))
    torch.testing.assert_close(block(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kernel", [3, 5])
def test_bottleneck_block(kernel: int) -> None:
    block, x = stirred(Bottleneck(4, kernel, "instance", bias=True)), noise(2, 4, 8, 8)
    narrow, middle, widen = convolutions(block)
    assert (narrow.out_channels, middle.kernel_size, widen.in_channels) == (2, (kernel, kernel), 2)
    inner = relu(instance_norm(reflected(relu(instance_norm(conv2d(x, narrow.weight, narrow.bias))), middle)))
    torch.testing.assert_close(block(x), x + conv2d(inner, widen.weight, widen.bias), rtol=0, atol=1e-12)


def test_depthwise_block() -> None:
    block, x = stirred(Depthwise(4, 5, 3, "instance")), noise(2, 4, 8, 8)
    deep, widen, narrow = convolutions(block)
    assert (widen.out_channels, widen.kernel_size, narrow.out_channels) == (12, (1, 1), 4)
    # one filter a channel: channel by channel
    filtered = torch.cat(
        [
            conv2d(pad(x[:, [c]], [2] * 4, mode="reflect"), deep.weight[[c]], deep.bias[[c]])  # type: ignore[index]
            for c in range(4)
        ],
        dim=1,
    )
    mixed = conv2d(gelu(conv2d(instance_norm(filtered), widen.weight, widen.bias)), narrow.weight, narrow.bias)
    torch.testing.assert_close(block(x), x + instance_norm(mixed), rtol=0, atol=1e-12)


@pytest.mark.parametrize("form", ["resnet", "dense", "depthwise"])
def test_resizing_draws_no_checkerboard(form: str) -> None:
    """A constant embedding decodes to a constant image by "resize"; "transposed" draws a pattern of period 2 or 4."""
    spread = {}
    for upsampling in ("resize", "transposed"):
        options: dict[str, Any] = {"width": 4, "blocks": 2, "norm": "none", "upsampling": upsampling}
        if form != "resnet":
            options |= {"form": form, "kernel": 5}
        make = Resnet if form == "resnet" else LargeKernel
        decoder = stirred(make(domain(size=64), domain("b", 64), **options))
        embedding = (0.1 * noise(1, 16, 1, 1)).expand(1, 16, 16, 16)
        inner = decoder.decode(embedding)[..., 16:-16, 16:-16]
        spread[upsampling] = inner.std(dim=(2, 3))
        torch.testing.assert_close(inner[..., 4:, 4:], inner[..., :-4, :-4], rtol=0, atol=1e-12)
    assert spread["resize"].max() < 1e-12
    assert spread["transposed"].min() > 1e-3


def folded_by_hand(x: Tensor) -> Tensor:
    """Blocks of 2x2 pixels become channels, twice; by reshaping."""
    for _ in range(2):
        n, c, h, w = x.shape
        x = x.reshape(n, c, h // 2, 2, w // 2, 2).permute(0, 1, 3, 5, 2, 4).reshape(n, 4 * c, h // 2, w // 2)
    return x


def unfolded_by_hand(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.reshape(n, c // 4, 2, 2, h, w).permute(0, 1, 4, 2, 5, 3).reshape(n, c // 4, 2 * h, 2 * w)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (24, 16), (20, 12)])
def test_folded_generator(height: int, width: int) -> None:
    """The whole network in plain PyTorch, from its convolutions in order."""
    a, b = domain("a", height, 3, width), domain("b", height, 1, width)
    generator, x = (
        stirred(LargeKernel(a, b, 3, 3, kernel=5, ends="folded", form="bottleneck")),
        noise(2, 3, height, width),
    )
    first, *within, deep, one, two, last = convolutions(generator)
    h = reflected(folded_by_hand(x), first)
    for block in range(3):
        if block == 1:
            torch.testing.assert_close(generator.encode(x), h, rtol=0, atol=1e-12)
        narrow, middle, widen = within[3 * block : 3 * block + 3]
        inner = relu(instance_norm(reflected(relu(instance_norm(conv2d(h, narrow.weight, narrow.bias))), middle)))
        h = h + conv2d(inner, widen.weight, widen.bias)
    h = unfolded_by_hand(reflected(h, deep))
    h = h + reflected(relu(reflected(h, one)), two)
    expected = unfolded_by_hand(reflected(h, last)).tanh()
    assert expected.shape == (2, 1, height, width)
    torch.testing.assert_close(generator(x), expected, rtol=0, atol=1e-12)


def test_a_folded_generator_starts_near_the_identity() -> None:
    """Smooth images come out as tanh(1.5 x), up to what the random weights add."""
    torch.manual_seed(0)
    generator = LargeKernel(domain(), domain("b"), 16, 4, kernel=5, ends="folded", form="bottleneck")
    x = nn.functional.interpolate(noise(4, 3, 4, 4).float(), size=64, mode="bicubic").clamp(-1, 1)
    started = torch.corrcoef(torch.stack([generator(x).flatten(), (1.5 * x).tanh().flatten()]))[0, 1]
    assert started > 0.95
    with torch.no_grad():
        for p in (
            p for block in generator.modules() if isinstance(block, Residual | Bottleneck) for p in block.parameters()
        ):
            p.zero_()
        for layer in convolutions(generator):
            if layer.kernel_size == (3, 3):
                # the centre of a filter is what the identity was added to
                layer.weight.copy_((2 * layer.weight).round() / 2)
    torch.testing.assert_close(generator(x), (1.5 * x).tanh())


@pytest.mark.parametrize(("height", "width"), [(18, 16), (16, 30), (7, 7)])
def test_folding_needs_multiples_of_4(height: int, width: int) -> None:
    said = f"^{height}x{width} pixels are not allowed: height and width should be multiples of 4$"
    with pytest.raises(ValueError, match=said):
        Fold()(torch.zeros(1, 3, height, width))
