"""What the engine relies on in generators and discriminators."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from ganlab.interfaces import (
    Discriminator,
    Domain,
    Generator,
)
from ganlab.modules import evaluating, shape_lazy
from ganlab.networks import Networks
from ganlab.testing.making import check_class, made_of, pair_of
from ganlab.testing.promise import apart, check_gradients, close, promise, seeded, sides_of, unseen, weighted
from ganlab.testing.simple import (
    EMBEDDING,
    IMAGES,
    WAYS,
    noise,
)

__tracebackhide__ = True


@unseen
def check_generator(cls: type[Generator], /, *, images: Domain = IMAGES, **options: Any) -> None:
    """A generator's promises, on both ways."""
    check_class(cls, "generator", options)
    domains = {name: images._replace(name=name) for name in "ab"}
    for way in WAYS:
        x = noise(images, "generator", way)

        def make(way: str = way, x: Tensor = x) -> Generator:
            network = pair_of(cls, domains, options)[way]
            shape_lazy(network, x.float())
            return network

        with promise(cls, "is made of its options"):
            pair_of(cls, domains, options)[way]
        torch.manual_seed(0)
        with promise(cls, "encodes to (N, E, h, w)") as so:
            network = make().double()
            embedding = seeded(_encoded, network, x)
            so(embedding.dim() == 4 and len(embedding) == len(x), f"it encodes {sides_of(x)} to {sides_of(embedding)}")
        with promise(cls, "decodes to images of the target domain in [-1, 1], however large its weights") as so:
            large = make().double()
            for parameter in large.parameters():
                parameter.data.mul_(30)
            fake = large(x)
            so(fake.shape == x.shape, f"of {sides_of(x)} it makes {sides_of(fake)}")
            so(bool((fake.abs() <= 1).all()), f"values go from {fake.min():.3g} to {fake.max():.3g}")
        with promise(cls, "can be copied, whatever a forward with gradients has left on it"):
            copy.deepcopy(large)
        with promise(cls, "has a decoder that sees the embedding alone, and leaves it as it is") as so:
            version, alone = embedding._version, copy.deepcopy(network)
            with evaluating(alone):
                one = seeded(_decoded, alone, embedding)
                so(embedding._version == version, "it changes it in place")
                seeded(_encoded, alone, x.flip(0))
                other = seeded(_decoded, alone, embedding)
            so(close(one, other), f"after others were encoded its images differ by up to {apart(one, other):.3g}")
        with promise(cls, "has a decoder through which gradients reach the embedding") as so:
            leaf = embedding.requires_grad_()
            (gradient,) = torch.autograd.grad(weighted(network.decode(leaf)), leaf, allow_unused=True)
            check_gradients({"the embedding": gradient}, so)
        _check_network(cls, make, _forward, x)
        with promise(cls, "has features whose last is the embedding") as so:
            embedding, last = (seeded(run, copy.deepcopy(network), x) for run in (_encoded, _last))
            so(close(embedding, last), f"they differ by up to {apart(embedding, last):.3g}")
        with promise(cls, "has a forward that is decode of encode: it is trained by these, and samples by that") as so:
            whole = copy.deepcopy(network)
            with evaluating(whole):
                one, other = seeded(_forward, whole, x), seeded(_in_two, whole, x)
            so(close(one, other), f"the images differ by up to {apart(one, other):.3g}")


@unseen
def check_discriminator(cls: type[Discriminator], /, *, images: Domain | None = None, **options: Any) -> None:
    """A discriminator's promises. One that sees embeddings is given those of 4 channels, 8x8, unless `images` says
    otherwise."""
    check_class(cls, "discriminator", options)
    torch.manual_seed(0)
    with promise(cls, "is made of its options"):
        sees = made_of(cls, options, IMAGES if images is None else images).sees
    shape = images or (EMBEDDING if sees == "embeddings" else IMAGES)

    def make() -> Discriminator:
        network: Discriminator = made_of(cls, options, shape)
        shape_lazy(network, x.float())
        return network

    x = noise(shape, "discriminator")
    torch.manual_seed(0)
    with promise(cls, "gives scores (N, K, h, w), through which gradients reach what it sees") as so:
        network = make().double()
        x.requires_grad_()
        scores = network(x)
        so(scores.dim() == 4 and len(scores) == len(x), f"of {sides_of(x)} it gives {sides_of(scores)}")
        so(scores.requires_grad, "the scores have no gradient")
        (gradient,) = torch.autograd.grad(weighted(scores), x, allow_unused=True)
        check_gradients({"what it sees": gradient}, so)
        x = x.detach()
    with promise(cls, "keeps its parameters in after_update, where the optimiser has them, and finite") as so:
        updated = make()
        before = [id(parameter) for parameter in updated.parameters()]
        with torch.no_grad():
            updated.after_update()
        kept = [id(parameter) for parameter in updated.parameters()] == before
        so(kept, f"of {len(before)} parameters some are others now")
        finite = [name for name, parameter in updated.named_parameters() if not parameter.isfinite().all()]
        so(not finite, f"not finite: {', '.join(finite)}")
    _check_network(cls, make, _forward, x)
    with promise(cls, "can be differentiated twice, as gradient penalties do: by autograd as by differences") as so:
        by_autograd, by_differences, size = _second(make, x)
        near = abs(by_autograd - by_differences) <= 1e-3 * (abs(by_autograd) + abs(by_differences)) + 1e-6 * size
        so(near, f"a penalty's slope is {by_autograd:.6g} by autograd, {by_differences:.6g} by differences")


def _check_network(cls: type, make: Callable[[], nn.Module], run: Callable[[Any, Tensor], Tensor], x: Tensor) -> None:
    """What generators and discriminators have in common. `x` is float64."""
    with promise(cls, "has initial weights that depend on torch's seed alone") as so:
        made = []
        for _ in range(2):
            torch.manual_seed(0)
            made.append(make().state_dict())
        differ = [name for name, value in made[0].items() if not torch.equal(value, made[1][name])]
        so(not differ, f"made twice with seed 0, {', '.join(differ)} differ")

    def fresh(dtype: torch.dtype = torch.float64) -> nn.Module:
        """The same once more, made and not copied: nobody copies discriminators, and old weight norms refuse it."""
        torch.manual_seed(0)
        return make().to(dtype)

    full = fresh()
    # under a generator's name, as which any network will do
    networks = Networks({"ab": cast(Generator, full)}, {}, {})
    with promise(cls, "gives the same for the same seed, and without one unless it is stateful") as so:
        one, other = (seeded(run, fresh(), x) for _ in range(2))
        so(torch.equal(one, other), f"with one seed its outputs differ by up to {apart(one, other):.3g}")
        if not networks.stateful("generator/ab"):
            again = fresh()
            one, other = seeded(run, again, x), seeded(run, again, x, seed=1)
            so(close(one, other), f"stateful is False, and twice its outputs differ by up to {apart(one, other):.3g}")
    with promise(cls, "leaves what it is given as it is") as so:
        version = x._version
        seeded(run, fresh(), x)
        so(x._version == version, "it changes it in place")
    if networks.joinable("generator/ab"):
        with promise(cls, "treats each image of a batch as if alone, where per_image is True") as so:
            batch, alone = run(full, x), torch.cat([run(full, image[None]) for image in x])
            so(close(batch, alone), f"alone and in a batch outputs differ by up to {apart(batch, alone):.3g}")
    with promise(cls, "passes finite gradients to all parameters that take any") as so:
        named = {name: parameter for name, parameter in full.named_parameters() if parameter.requires_grad}
        if named:
            gradients = torch.autograd.grad(weighted(run(full, x)), list(named.values()), allow_unused=True)
            check_gradients(dict(zip(named, gradients, strict=True)), so, nonzero=False)
    with promise(cls, "keeps its state in parameters and buffers: loaded into another one, it gives the same") as so:
        run(full, x)
        torch.manual_seed(1)
        loaded = make().double()
        loaded.load_state_dict(full.state_dict())
        with evaluating(full), evaluating(loaded):
            settled = [seeded(run, each, x) for each in (full, loaded)]
        for mode, (one, other) in (("eval", settled), ("train", [seeded(run, each, x) for each in (full, loaded)])):
            so(torch.equal(one, other), f"in {mode} mode outputs differ by up to {apart(one, other):.3g}")
    expected = seeded(run, fresh(torch.float32), x.float())
    single = fresh(torch.float32)
    with promise(cls, "works under autocast to bfloat16") as so, torch.autocast("cpu", torch.bfloat16):
        rough = seeded(run, single, x.float()).float()
        error = float((rough - expected).abs().mean())
        allowed = 0.1 * float(expected.abs().mean()) + 0.01
        so(error <= allowed, f"outputs are {error:.3g} off on average, and {allowed:.3g} is allowed")
    with promise(cls, "gives the same in the memory format channels_last") as so:
        last = fresh(torch.float32).to(memory_format=torch.channels_last)
        other = seeded(run, last, x.float().contiguous(memory_format=torch.channels_last))
        so(close(expected, other, 1e-3), f"outputs differ by up to {apart(expected, other):.3g}")


def _forward(network: Any, x: Tensor) -> Tensor:
    made: Tensor = network(x)
    return made


def _encoded(network: Any, x: Tensor) -> Tensor:
    embedding: Tensor = network.encode(x)
    return embedding


def _decoded(network: Any, embedding: Tensor) -> Tensor:
    images: Tensor = network.decode(embedding)
    return images


def _in_two(network: Any, x: Tensor) -> Tensor:
    return _decoded(network, _encoded(network, x))


def _last(network: Any, x: Tensor) -> Tensor:
    embedding: Tensor = network.features(x)[-1]
    return embedding


def _second(make: Callable[[], Discriminator], x: Tensor) -> tuple[float, float, float]:
    """The slope of a gradient penalty along the weights, by autograd and by central differences; and the penalty."""

    def settled() -> Discriminator:
        torch.manual_seed(0)
        network = make().double()
        # spectral norm's vectors are constants to autograd: a forward moves them, and in eval mode they stay
        seeded(_forward, network, x)
        return network.eval()

    def penalty(network: Discriminator) -> Tensor:
        torch.manual_seed(0)
        leaf = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(weighted(network(leaf)), leaf, create_graph=True)
        return gradient.square().sum()

    def along(sign: float) -> float:
        moved = settled()
        with torch.no_grad():
            for parameter, direction in zip(moved.parameters(), directions, strict=True):
                parameter.add_(direction, alpha=sign * step)
        return float(penalty(moved).detach())

    step = 1e-7
    network = settled()
    random = torch.Generator().manual_seed(0)
    directions = [
        p.detach() * (1 + 0.5 * torch.randn(p.shape, generator=random, dtype=p.dtype)) for p in network.parameters()
    ]
    value = penalty(network)
    parameters = [p for p in network.parameters() if p.requires_grad]
    slopes = torch.autograd.grad(value, parameters, allow_unused=True) if value.requires_grad else ()
    moving = [d for p, d in zip(network.parameters(), directions, strict=True) if p.requires_grad]
    by_autograd = sum(float((s * d).sum()) for s, d in zip(slopes, moving, strict=False) if s is not None)
    return by_autograd, (along(1) - along(-1)) / (2 * step), float(value.detach())
