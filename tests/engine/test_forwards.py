"""A step does no unnecessary work: torch's hooks count its forwards, and tables derived by hand say how many there are.
No forward is repeated without a reason, and no operation waits for the device. This module is a plugin itself.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from importlib.metadata import EntryPoint
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import ganlab
from ganlab import Translation
from ganlab.components.registry import Registry, installed
from ganlab.data.dataset import Dataset
from ganlab.data.sampler import Sampler
from ganlab.engine.trainer import Trainer
from ganlab.interfaces.networks import Domain
from ganlab.interfaces.sources import Source
from ganlab.spec.files import merge
from ganlab.spec.resolve import resolve
from ganlab.system.build import build
from helpers.synchronisation import no_synchronisation
from helpers.systems import SHIPPED, SIZE, TINY, choices

Make = Callable[..., Trainer]

BATCH = 4
EMBEDDING = {"embedding": {"type": "embedding", "width": 4, "layers": 1}}
ON_EMBEDDINGS = {"embedding": {"type": "embedding_lsgan", "weight": {"generator": 0.5}}}
IDENTITY = {"identity": {"type": "identity", "weight": 5}}
NOISY = {"adversarial": {"type": "noisy_lsgan", "flip": 0.1}}
CRITICS = {"image": {"type": "critic", "of": {"type": "patch", "width": 4, "layers": 1}}}
FREE_CRITICS = {"image": CRITICS["image"] | {"clamp": 0}}
WASSERSTEIN = {"adversarial": {"type": "wasserstein"}}
PENALISED = WASSERSTEIN | {"penalty": {"type": "gradient_penalty", "weight": 10}}
CLASSIFYING = {"image": {"type": "acgan", "width": 4, "layers": 1}}
CLASSES = {"adversarial": {"type": "acgan_source", "of": {"type": "lsgan"}}, "classes": {"type": "acgan_class"}}
ONE_WAY = {"directions": ["ab"], "schedule": {"type": "alternating"}}
PATCHES = {
    name: {"type": "spectral_norm", "of": {"type": "cam_patch", "width": 4, "layers": layers}}
    for name, layers in (("global", 2), ("local", 1))
}
UGATIT: dict[str, Any] = {
    "generator": {"type": "ugatit", "width": 4, "blocks": 1},
    "discriminators": {"image": None, **PATCHES},
    "losses": IDENTITY | {"adversarial": {"type": "cam_lsgan", "names": ["global", "local"]}, "cam": {"type": "cam"}},
}


class FeatureMatching(ganlab.Loss):
    """The distance of a fake's and a real image's activations in the discriminator (arXiv:1711.11585, eq. 4)."""

    def generator(self, t: Translation) -> Tensor:
        t.log("step", t.step)
        t.log("brightness", t.fake.mean())
        pairs = zip(t.activations(t.fake)[:-1], t.activations(t.target)[:-1], strict=True)
        return torch.stack([(fake - real).abs().mean() for fake, real in pairs]).sum()


@ganlab.hookimpl
def ganlab_losses() -> dict[str, type[ganlab.Loss]]:
    return {"matching": FeatureMatching}


REGISTRY = Registry([*installed(), EntryPoint("reading", __name__, "ganlab")])


def contrast(**options: Any) -> dict[str, Any]:
    return {"cycle": None, "contrast": {"type": "patch_nce", **options}}


def alternating(moves: str = "own", **more: Any) -> dict[str, Any]:
    return {"schedule": {"type": "alternating", "moves": moves}, **more}


def four_updates(kind: str) -> dict[str, Any]:
    return {
        "data": {"size": 32},
        "generator": {"type": "digits", "width": 4},
        "discriminators": {"image": {"type": "digits", "width": 4, "labels": kind == "class"}},
        "losses": {"adversarial": None, "real": {"type": f"{kind}_real"}, "fake": {"type": f"{kind}_fake"}},
        "schedule": {"type": "four_updates"},
    }


class Counts(NamedTuple):
    """Forwards of a batch in one step: each generator's encoder and decoder, each image discriminator, D_emb."""

    encoder: int
    decoder: int
    discriminator: int
    embedding: int = 0


# Both generators, and both image discriminators, have the same count in all of these systems, because the turns of one
# direction mirror those of the other. For G_ab and D_b:
#
# simultaneous  G's turn: encode, decode x_a (fake); encode, decode the other direction's fake (cycle); D_b scores the
#               fake. D's turn: D_b scores x_b and the fake, now as a leaf.
# + identity    G's turn: encode, decode x_b as well.
# + pool        D's turn: D_b scores what the pool shows instead of the fake.
# + D_emb       G's turn: D_emb scores both embeddings; D's turn: again both, as leaves.
# alternating   D_b's turn: encode, decode x_a; D_b scores x_b and the fake. G_ab's turn: D_b, moved, scores the fake.
#               G_ba's turn: encode, decode the other direction's fake (cycle). G_ab has not moved between its two uses.
# + D_emb       its turn: encode x_a, score both embeddings; D_b's turn decodes that embedding. Each G turn: D_emb,
#               moved, scores the direction's embedding: four in all.
#    own        G_ba has not moved when its turn comes: its embedding of x_b is still valid.
#    both       G_ab's turn moves G_ba as well: x_b is encoded again. So G_ba has one encoding more than G_ab.
# wgan          five critic turns: encode, decode x_a; D_b scores x_b and the fake. G's turn: fake, cycle; D_b scores
#               the fake.
# + penalty     and the points between, in each critic turn.
# + long start  in the first 25 steps as many critic turns as `long_updates` says: three.
# four updates  D's turns: D_b scores x_b; moved, the fake: encode, decode x_a. G's turn of ab: D_b, moved, scores the
#               fake, which is still valid; G_ba encodes, decodes it (cycle). G's turn of ba, both moved: G_ba encodes,
#               decodes x_b again, G_ab that fake. So G_ba has one of each more than G_ab.
# cut           D_b's turn: encode, decode x_a; D_b scores x_b and the fake. G_ab's turn: D_b, moved, scores the fake;
#               encode the fake; encode, decode x_b (identity); encode that. With both schedules.
# fastcut       no identity: encode the fake and the mirrored x_a.
# ugatit        as with identity, which gives the CAM logits of x_b as well; each of the two discriminators.
# matching      G's turn: D_b scores x_b as well.
# accumulate    all of it for each of two parts of the batch.
TABLE: dict[str, tuple[dict[str, Any], Counts]] = {
    "simultaneous": ({}, Counts(2, 2, 3)),
    "simultaneous, noisy labels": ({"losses": NOISY}, Counts(2, 2, 3)),
    "simultaneous, identity": ({"losses": IDENTITY}, Counts(3, 3, 3)),
    "simultaneous, pool": ({"schedule": {"pool": 6}}, Counts(2, 2, 3)),
    "simultaneous, D_emb": ({"losses": ON_EMBEDDINGS, "discriminators": EMBEDDING}, Counts(2, 2, 3, 4)),
    "simultaneous, pool, D_emb": (
        {"losses": ON_EMBEDDINGS, "discriminators": EMBEDDING, "schedule": {"pool": 6}},
        Counts(2, 2, 3, 4),
    ),
    "zhu2017": ({"losses": IDENTITY, "schedule": {"pool": 6, "decay_from": 0.5}}, Counts(3, 3, 3)),
    "alternating own": (alternating(), Counts(2, 2, 3)),
    "alternating both": (alternating("both"), Counts(2, 2, 3)),
    "alternating own, D_emb, noisy labels": (
        alternating(losses=ON_EMBEDDINGS | NOISY, discriminators=EMBEDDING),
        Counts(2, 2, 3, 4),
    ),
    "alternating both, D_emb, noisy labels": (
        alternating("both", losses=ON_EMBEDDINGS | NOISY, discriminators=EMBEDDING),
        Counts(2, 2, 3, 4),
    ),
    "alternating own, pool": ({"schedule": {"type": "alternating", "pool": 6}}, Counts(2, 2, 3)),
    "wgan": ({"discriminators": CRITICS, "losses": WASSERSTEIN, "schedule": {"type": "wgan"}}, Counts(7, 7, 11)),
    "wgan, penalty": (
        {"discriminators": FREE_CRITICS, "losses": PENALISED, "schedule": {"type": "wgan"}},
        Counts(7, 7, 16),
    ),
    "wgan, long start": (
        {
            "discriminators": CRITICS,
            "losses": WASSERSTEIN,
            "schedule": {"type": "wgan", "long_start": True, "long_updates": 3},
        },
        Counts(5, 5, 7),
    ),
    "large kernels": (
        {"generator": {"type": "large_kernel", "width": 4, "blocks": 2, "kernel": 5}, **alternating()},
        Counts(2, 2, 3),
    ),
    "alternating own, classes": (alternating(discriminators=CLASSIFYING, losses=CLASSES), Counts(2, 2, 3)),
    "sgd for discriminators": (
        {"schedule": {"type": "sgd_discriminator", "of": {"type": "alternating", "steps": 6}, "steps": None}},
        Counts(2, 2, 3),
    ),
    "cut": ({**ONE_WAY, "losses": contrast()}, Counts(4, 2, 3)),
    "cut, simultaneous, both directions": ({"losses": contrast()}, Counts(4, 2, 3)),
    "fastcut": ({**ONE_WAY, "losses": contrast(weight=10, identity=0, flip=True)}, Counts(3, 1, 3)),
    "ugatit": (UGATIT, Counts(3, 3, 3)),
    "alternating own, matching": (alternating(losses={"matching": {"type": "matching"}}), Counts(2, 2, 4)),
    "alternating own, accumulate": (
        {"schedule": {"type": "alternating", "clip": 1.0}, "runtime": {"accumulate": 2}},
        Counts(4, 4, 6),
    ),
    "four updates": (four_updates("lsgan"), Counts(2, 2, 3)),
    "four updates, labels": (four_updates("class"), Counts(2, 2, 3)),
}
TWICE = {
    "alternating both, D_emb, noisy labels": {"generator/ba.features": 3},
    "four updates": {"generator/ba.features": 3, "generator/ba.decode": 3},
    "four updates, labels": {"generator/ba.features": 3, "generator/ba.decode": 3},
}
"""The counts that differ between the directions."""


def expected(system: str) -> dict[str, int]:
    """Returns {the trainer's name for a forward: number in one step}."""
    counts = TABLE[system][1]
    forwards = {}
    for direction in resolve(merge(TINY, TABLE[system][0]), registry=REGISTRY).directions:
        forwards |= {f"generator/{direction}.features": counts.encoder, f"generator/{direction}.decode": counts.decoder}
        forwards |= {f"{name}.forward": counts.discriminator for name in on_images(system, direction[1])}
    forwards |= {"discriminator/embedding.forward": counts.embedding} if counts.embedding else {}
    return forwards | TWICE.get(system, {})


def on_images(system: str, domain: str) -> list[str]:
    """The names of the discriminators of images of one domain."""
    labels = resolve(merge(TINY, TABLE[system][0]), registry=REGISTRY).discriminators
    return [f"discriminator/{label}/{domain}" for label in labels if label != "embedding"]


def digest(*tensors: Tensor) -> str:
    found = hashlib.blake2b(digest_size=16)
    for tensor in tensors:
        found.update(tensor.detach().numpy().tobytes())
    return found.hexdigest()


class Witness:
    """Sees every forward of every network by a hook on its first convolution."""

    def __init__(self, trainer: Trainer) -> None:
        self.forwards: Counter[str] = Counter()
        self.images: Counter[str] = Counter()
        """{part: number of images or embeddings that it was given}."""
        self.met: Counter[tuple[str, str, str]] = Counter()
        """{(part, digest of its weights, digest of one image or embedding): number of times}."""
        for name, module in trainer.system.networks.modules.items():
            if name.startswith("generator"):
                self._follow(f"{name}.features", module.encoder)  # type: ignore[arg-type]
                self._follow(f"{name}.decode", module.decoder)  # type: ignore[arg-type]
            else:
                self._follow(f"{name}.forward", module)

    def _follow(self, name: str, part: nn.Module) -> None:
        def hook(first: nn.Module, inputs: tuple[Tensor]) -> None:
            self.forwards[name] += 1
            self.images[name] += len(inputs[0])
            weights = digest(*part.parameters())
            for one in inputs[0]:
                self.met[name, weights, digest(one)] += 1

        next(m for m in part.modules() if isinstance(m, nn.Conv2d)).register_forward_pre_hook(hook)

    def again(self) -> dict[str, int]:
        """{part: how many images it saw more than once with the same weights}."""
        found: Counter[str] = Counter()
        for (name, _, _), times in self.met.items():
            found[name] += times - 1
        return {name: count for name, count in found.items() if count}


Shown = dict[str, Counter[str]]
"""{when: {direction: number of images}}."""


def follow_pools(trainer: Trainer) -> Shown:
    """Counts the images that the pools show and were given "now", in this step, or "before", in the last one."""
    shown: Shown = {"now": Counter(), "before": Counter()}
    last: dict[str, Tensor] = {}

    def follow(direction: str, pool: nn.Module) -> None:
        def hook(pool: nn.Module, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
            for when, fakes in (("now", inputs[0]), ("before", last.get(direction, ()))):
                shown[when][direction] += sum(torch.equal(one, fake) for one in output for fake in fakes)
            last[direction] = inputs[0].clone()

        pool.register_forward_hook(hook)

    for direction, pool in trainer.state.pools.items():
        follow(direction, pool)
    return shown


def test_the_table_has_every_schedule_with_each_of_its_choices() -> None:
    schedules = [resolve(merge(TINY, patch), registry=REGISTRY).schedule for patch, _ in TABLE.values()]
    for component in SHIPPED:
        if component.kind == "schedule":
            rows = [schedule for schedule in schedules if schedule["type"] == component.name]
            assert rows, f"no row has the schedule {component.name}: derive its counts, and what repeats them"
            for option, value in choices(component):
                assert any(row[option] == value for row in rows), f"no row has {component.name}'s {option} {value}"


@pytest.mark.parametrize("system", TABLE)
def test_forwards_of_a_step(make_trainer: Make, system: str) -> None:
    patch = TABLE[system][0]
    trainer = make_trainer(patch, batch=BATCH, classes=10, known=REGISTRY)
    witness, shown = Witness(trainer), follow_pools(trainer)
    steps = 3
    for _ in range(steps):
        trainer.step()
    assert witness.forwards == {name: steps * count for name, count in expected(system).items()}
    assert trainer.system.networks.forwards == witness.forwards
    share = BATCH // len(trainer.parts)
    assert witness.images == {name: share * count for name, count in witness.forwards.items()}
    assert witness.again() == scored_again(trainer, system, steps, shown)


def scored_again(trainer: Trainer, system: str, steps: int, shown: Shown) -> dict[str, int]:
    """Returns {part: how many images it sees again with the same weights}. Only discriminators do, in two cases.

    Under `simultaneous` the discriminators have not moved since the generators' turn, in which the gradients of their
    scores reached the generators; in their own turn they score the same tensors as leaves. A pool shows fakes of this
    step or, if D_b moves first, fakes that D_b scored at the end of the step before.
    """
    simultaneous = trainer.system.spec.schedule["type"] == "simultaneous"
    found = {}
    if trainer.state.pools:
        counts = shown["now" if simultaneous else "before"]
        assert all(counts.values())
        found = {f"discriminator/image/{direction[1]}.forward": count for direction, count in counts.items()}
    elif simultaneous:
        found = {f"{name}.forward": steps * BATCH for domain in "ab" for name in on_images(system, domain)}
    if simultaneous and TABLE[system][1].embedding:
        found["discriminator/embedding.forward"] = steps * BATCH * 2
    return found


# batches of images that the networks are given in a step; `*` is each generator, or each domain
LESS: dict[str, tuple[dict[str, Any], dict[str, int]]] = {
    # one fake in each direction, which both players use; nothing is translated back
    "no cycle": (
        alternating(losses={"cycle": None}),
        {"generator/*.features": 1, "generator/*.decode": 1, "discriminator/image/*.forward": 3},
    ),
    "cycle of weight 0": (
        alternating(losses={"cycle": {"weight": 0}}),
        {"generator/*.features": 1, "generator/*.decode": 1, "discriminator/image/*.forward": 3},
    ),
    "identity of weight 0": (
        alternating(losses={"identity": {"type": "identity", "weight": 0}}),
        {"generator/*.features": 2, "generator/*.decode": 2, "discriminator/image/*.forward": 3},
    ),
    # only embeddings are scored, so nothing is decoded: two scores in D_emb's turn, one in each generator's
    "embeddings alone": (
        alternating(losses={"adversarial": None, "cycle": None, **ON_EMBEDDINGS}, discriminators=EMBEDDING),
        {"generator/*.features": 1, "discriminator/embedding.forward": 4},
    ),
    # the discriminators have no term, so they have no turn
    "no discriminators' term": (
        {"losses": {"adversarial": {"weight": {"discriminator": 0}}}},
        {"generator/*.features": 2, "generator/*.decode": 2, "discriminator/image/*.forward": 1},
    ),
    # nothing was scored in the generators' turn, so the discriminators' turn scores both
    "no generators' term": (
        {"losses": {"adversarial": {"weight": {"generator": 0}}}},
        {"generator/*.features": 2, "generator/*.decode": 2, "discriminator/image/*.forward": 2},
    ),
}


@pytest.mark.parametrize("system", LESS)
def test_what_no_loss_asks_for_is_not_computed(make_trainer: Make, system: str) -> None:
    patch, counts = LESS[system]
    trainer = make_trainer(patch, batch=BATCH)
    witness = Witness(trainer)
    trainer.step()
    every = [(name, ("ab", "ba") if name.startswith("generator") else ("a", "b"), n) for name, n in counts.items()]
    assert witness.images == {name.replace("*", place): BATCH * n for name, places, n in every for place in places}
    assert witness.again() == {}


@pytest.mark.parametrize("system", TABLE)
def test_a_step_never_waits_for_the_device(make_trainer: Make, system: str) -> None:
    trainer = make_trainer(
        merge(TABLE[system][0], {"ema_halflife_images": 100}), batch=BATCH, classes=10, known=REGISTRY
    )
    with no_synchronisation():
        for _ in range(2):
            trainer.step()
    assert len(trainer.log.read(trainer.state)) == 2


def test_a_step_with_the_real_sampler_never_waits_either() -> None:
    datasets = {}
    for index, name in enumerate("ab"):
        pixels = torch.randint(0, 256, (12, 3, SIZE, SIZE), generator=torch.Generator().manual_seed(index))
        held, train = torch.arange(3), torch.arange(3, 12)
        keys = tuple(map(str, range(12)))
        labels = torch.arange(12) % 2
        domain = Domain(name, 3, SIZE, SIZE, 2)
        datasets[name] = Dataset(domain, Source(), keys, pixels.to(torch.uint8), labels, train, held, ())
    spec = resolve(TINY)
    system = build(spec, {name: dataset.domain for name, dataset in datasets.items()})
    sampler = Sampler(datasets, spec.data.batch, spec.data.flip, spec.seed, system.device, system.dtype)
    trainer = Trainer(system, sampler)
    with no_synchronisation():
        for _ in range(3):
            trainer.step()


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.sum().item(),
        lambda x: bool(x.sum() > 0),
        lambda x: x.tolist(),
        lambda x: x[x > 0],
        lambda x: torch.equal(x, x),
        lambda x: x.detach().numpy(),
    ],
)
def test_the_modes_see_what_waits(read: Callable[[Tensor], Any]) -> None:
    with pytest.raises(AssertionError, match="makes the host wait"), no_synchronisation():
        read(torch.ones(3))
