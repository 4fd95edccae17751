"""The checks for generators and discriminators."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ganlab.interfaces.networks import Discriminator, Domain, Generator
from ganlab.system.plain_state import TORCH, drawn_by, moved_by
from ganlab.testing.building import build, build_pair, check_class, sees
from ganlab.testing.requirement import (
    check_gradients,
    close,
    keeps_random_state,
    max_difference,
    requirement,
    run_seeded,
    shape_text,
    weighted_sum,
)
from ganlab.testing.simple import DIRECTIONS, EMBEDDING, IMAGES, noise, paired
from ganlab.torch_utils import checked_activations, evaluating, shape_lazy, stateful, trainable

__tracebackhide__ = True

Network = Generator | Discriminator


@keeps_random_state
def check_generator(cls: type[Generator], /, *, images: Domain = IMAGES, **options: Any) -> None:
    """Checks the generators of both directions."""
    check_class(cls, "generator", options)
    domains = {name: images._replace(name=name) for name in "ab"}
    for direction in DIRECTIONS:
        x = noise(images, "generator", direction)

        def make(direction: str = direction, x: Tensor = x) -> Generator:
            network = build_pair(cls, domains, DIRECTIONS, options)[direction]
            shape_lazy(network, x.float())
            return network

        with requirement(cls, "can be built from its options"):
            make()
        torch.manual_seed(0)
        with requirement(cls, "encodes to (N, E, h, w)") as check:
            network = make().double()
            embedding = run_seeded(_encode, network, x)
            fits = embedding.dim() == 4 and len(embedding) == len(x)
            check(fits, f"it encodes {shape_text(x)} to {shape_text(embedding)}")
        with requirement(cls, "decodes to images of the target domain in [-1, 1], however large its weights") as check:
            large = make().double()
            for parameter in large.parameters():
                parameter.data.mul_(30)
            fake = large(x)
            check(fake.shape == x.shape, f"it translates {shape_text(x)} to {shape_text(fake)}")
            check(bool((fake.abs() <= 1).all()), f"values go from {fake.min():.3g} to {fake.max():.3g}")
        with requirement(cls, "can be copied after a forward with gradients"):
            copy.deepcopy(large)
        with requirement(cls, "has a decoder that reads the embedding alone and does not change it") as check:
            version, alone = embedding._version, copy.deepcopy(network)
            with evaluating(alone):
                one = run_seeded(_decode, alone, embedding)
                check(embedding._version == version, "it changes the embedding in place")
                run_seeded(_encode, alone, x.flip(0))
                other = run_seeded(_decode, alone, embedding)
            difference = f"{max_difference(one, other):.3g}"
            check(close(one, other), f"after it encoded other images, its output differs by up to {difference}")
        with requirement(cls, "has a decoder that passes gradients to the embedding") as check:
            leaf = embedding.requires_grad_()
            (gradient,) = torch.autograd.grad(weighted_sum(network.decode(leaf)), leaf, allow_unused=True)
            check_gradients({"the embedding": gradient}, check)
        _check_network(cls, make, _forward, x)
        with requirement(cls, "has features whose last one is the embedding") as check:
            embedding, last = (run_seeded(run, copy.deepcopy(network), x) for run in (_encode, _last_feature))
            check(close(embedding, last), f"they differ by up to {max_difference(embedding, last):.3g}")
        with requirement(cls, "has a forward that equals decode(encode(images))") as check:
            whole = copy.deepcopy(network)
            with evaluating(whole):
                one, other = run_seeded(_forward, whole, x), run_seeded(_encode_and_decode, whole, x)
            check(close(one, other), f"the images differ by up to {max_difference(one, other):.3g}")


@keeps_random_state
def check_discriminator(cls: type[Discriminator], /, *, images: Domain | None = None, **options: Any) -> None:
    """Checks a discriminator.

    One that sees embeddings is given 4 channels of 8x8 unless `images` sets a shape. One that sees pairs is given two
    images of the shape `images`, concatenated along the channels.
    """
    check_class(cls, "discriminator", options)
    torch.manual_seed(0)
    with requirement(cls, "can be built from its options"):
        kind = sees(cls, options)
        shape = images or (EMBEDDING if kind == "embeddings" else IMAGES)
        if kind == "pairs":
            shape = paired(shape)
        build(cls, options, shape)

    def make() -> Discriminator:
        network: Discriminator = build(cls, options, shape)
        shape_lazy(network, x.float())
        return network

    x = noise(shape, "discriminator")
    torch.manual_seed(0)
    with requirement(cls, "gives scores (N, K, h, w) and passes gradients to its input") as check:
        network = make().double()
        x.requires_grad_()
        scores = _scores(network, x)
        fits = scores.dim() == 4 and len(scores) == len(x)
        check(fits, f"for {shape_text(x)} it gives {shape_text(scores)}")
        check(scores.requires_grad, "the scores have no gradient")
        (gradient,) = torch.autograd.grad(weighted_sum(scores), x, allow_unused=True)
        check_gradients({"its input": gradient}, check)
        x = x.detach()
    _check_network(cls, make, _scores, x)
    with requirement(cls, "has features, a list of tensors whose last one is what forward gives") as check:
        one, other = (run_seeded(run, _fresh(make), x) for run in (_scores, _forward))
        difference = f"{max_difference(one, other):.3g}"
        check(
            close(one, other), f"they differ by up to {difference}; losses read the features: override one of the two"
        )
    with requirement(cls, "can be differentiated twice, as gradient penalties do") as check:
        by_autograd, by_differences, size = _second_derivative(make, x)
        near = abs(by_autograd - by_differences) <= 1e-3 * (abs(by_autograd) + abs(by_differences)) + 1e-6 * size
        check(near, f"a penalty's slope is {by_autograd:.6g} by autograd, {by_differences:.6g} by finite differences")


def _check_network(cls: type, make: Callable[[], Network], run: Callable[[Any, Tensor], Tensor], x: Tensor) -> None:
    """Checks what generators and discriminators have in common. `x` is float64."""
    with requirement(cls, "changes its parameters in after_update only in place, and keeps them finite") as check:
        updated = make()
        before = [id(parameter) for parameter in updated.parameters()]
        with torch.no_grad():
            updated.after_update()
        kept = [id(parameter) for parameter in updated.parameters()] == before
        check(kept, f"some of its {len(before)} parameters were replaced, and the optimizer has the old ones")
        wrong = [name for name, parameter in updated.named_parameters() if not parameter.isfinite().all()]
        check(not wrong, f"not finite: {', '.join(wrong)}")
    with requirement(cls, "has initial weights that depend on torch's seed alone") as check:
        made = []
        for _ in range(2):
            torch.manual_seed(0)
            made.append(make().state_dict())
        differ = [name for name, value in made[0].items() if not torch.equal(value, made[1][name])]
        check(not differ, f"built twice with seed 0, {', '.join(differ)} differ")
        used = _fresh(make)
        run(used, x)
        late = [name for name, _ in used.named_parameters() if name not in made[0]]
        check(not late, f"its first forward makes {', '.join(late)}; make layers in the constructor, or lazy ones")

    full, others = _fresh(make), 0.5 * x
    with requirement(cls, "gives the same output for the same seed, and for any seed unless stateful is True") as check:
        drawn = drawn_by(lambda: run(full, others))
        check(set(drawn) <= {TORCH}, f"it draws from {', '.join(drawn)}, not from torch's generator alone")
        check(not drawn or stateful(full), f"stateful is False, but it draws from {TORCH}")
        one, other = (run_seeded(run, _fresh(make), x) for _ in range(2))
        check(torch.equal(one, other), f"with one seed two outputs differ by up to {max_difference(one, other):.3g}")
        if not stateful(full):
            again = _fresh(make)
            one, other = run_seeded(run, again, x), run_seeded(run, again, x, seed=1)
            difference = f"{max_difference(one, other):.3g}"
            check(close(one, other), f"stateful is False, but two outputs differ by up to {difference}")
    with requirement(cls, "does not change its input") as check:
        version = x._version
        run_seeded(run, _fresh(make), x)
        check(x._version == version, "it changes the input in place")
    with requirement(cls, "passes finite gradients to all parameters that take gradients") as check:
        named = {name: parameter for name, parameter in full.named_parameters() if parameter.requires_grad}
        if named:
            # losses may read the activations too, and a head may serve nothing else
            outputs = [output for output in (*full.features(x), run(full, x)) if output.requires_grad]
            total = torch.stack([weighted_sum(output) for output in outputs]).sum()
            gradients = torch.autograd.grad(total, list(named.values()), allow_unused=True)
            check_gradients(dict(zip(named, gradients, strict=True)), check, nonzero=False)
    with requirement(cls, "keeps its state in parameters and buffers: a copy that loads them gives the same") as check:
        moved = moved_by(_use(network := _fresh(make), run, x), network)
        check(not moved, f"each use changes {', '.join(moved)}, which checkpoints do not keep: use register_buffer")
        run(full, others)
        torch.manual_seed(1)
        loaded = make().double()
        loaded.load_state_dict(full.state_dict())
        with evaluating(full), evaluating(loaded):
            in_eval = [run_seeded(run, each, x) for each in (full, loaded)]
        in_train = [run_seeded(run, each, x) for each in (full, loaded)]
        for mode, (one, other) in (("eval", in_eval), ("train", in_train)):
            check(torch.equal(one, other), f"in {mode} mode outputs differ by up to {max_difference(one, other):.3g}")
    expected = run_seeded(run, _fresh(make, torch.float32), x.float())
    single = _fresh(make, torch.float32)
    with requirement(cls, "works under autocast to bfloat16") as check, torch.autocast("cpu", torch.bfloat16):
        rough = run_seeded(run, single, x.float()).float()
        error = float((rough - expected).abs().mean())
        allowed = 0.1 * float(expected.abs().mean()) + 0.01
        check(error <= allowed, f"the mean error of the output is {error:.3g}, and {allowed:.3g} is allowed")
    with requirement(cls, "gives the same output in the memory format channels_last") as check:
        first, last = (_fresh(make, torch.float32) for _ in range(2))
        last.to(memory_format=torch.channels_last)
        # in another memory format the same seed gives other dropout masks
        with evaluating(first), evaluating(last):
            expected = run_seeded(run, first, x.float())
            other = run_seeded(run, last, x.float().contiguous(memory_format=torch.channels_last))
        check(close(expected, other, 1e-3), f"outputs differ by up to {max_difference(expected, other):.3g}")


def _fresh(make: Callable[[], Network], dtype: torch.dtype = torch.float64) -> Network:
    """Builds the same network again. Copying is not required of discriminators; old weight norms refuse it."""
    torch.manual_seed(0)
    return make().to(dtype)


def _use(network: Network, run: Callable[[Any, Tensor], Tensor], x: Tensor) -> Callable[[], None]:
    """Returns a function that uses a network, each time from the same parameters, buffers and seed."""
    initial = {name: value.clone() for name, value in network.state_dict().items()}

    def use() -> None:
        network.load_state_dict(initial)
        torch.manual_seed(0)
        run(network, x)
        with torch.no_grad():
            network.after_update()

    return use


def _forward(network: Any, x: Tensor) -> Tensor:
    made: Tensor = network(x)
    return made


def _scores(network: Any, x: Tensor) -> Tensor:
    scores: Tensor = checked_activations(network, network.features(x))[-1]
    return scores


def _encode(network: Any, x: Tensor) -> Tensor:
    embedding: Tensor = network.encode(x)
    return embedding


def _decode(network: Any, embedding: Tensor) -> Tensor:
    images: Tensor = network.decode(embedding)
    return images


def _encode_and_decode(network: Any, x: Tensor) -> Tensor:
    return _decode(network, _encode(network, x))


def _last_feature(network: Any, x: Tensor) -> Tensor:
    embedding: Tensor = network.features(x)[-1]
    return embedding


def _second_derivative(make: Callable[[], Discriminator], x: Tensor) -> tuple[float, float, float]:
    """Returns the slope of a gradient penalty along a direction of the weights, by autograd and by central
    differences; and the penalty."""

    def settled() -> Discriminator:
        torch.manual_seed(0)
        network = make().double()
        # spectral norm's vectors are constants to autograd: a forward changes them, and in eval mode they stay
        run_seeded(_scores, network, x)
        return network.eval()

    def penalty(network: Discriminator) -> Tensor:
        torch.manual_seed(0)
        leaf = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(weighted_sum(_scores(network, leaf)), leaf, create_graph=True)
        return gradient.square().sum()

    def penalty_at(sign: float) -> float:
        moved = settled()
        with torch.no_grad():
            for parameter, change in zip(trainable([moved]), changes, strict=True):
                parameter.add_(change, alpha=sign * step)
        return float(penalty(moved).detach())

    step = 1e-7
    network = settled()
    random = torch.Generator().manual_seed(0)
    parameters = list(trainable([network]))
    changes = [p.detach() * (1 + 0.5 * torch.randn(p.shape, generator=random, dtype=p.dtype)) for p in parameters]
    value = penalty(network)
    slopes = torch.autograd.grad(value, parameters, allow_unused=True) if value.requires_grad else ()
    by_autograd = sum(float((s * c).sum()) for s, c in zip(slopes, changes, strict=False) if s is not None)
    return by_autograd, (penalty_at(1) - penalty_at(-1)) / (2 * step), float(value.detach())
