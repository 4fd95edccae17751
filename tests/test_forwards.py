"""No work that isn't needed: real forwards counted by torch's hooks against tables derived by hand, none made twice for
the same weights and input, and none of a step's operations waiting for the device.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
import torch
from conftest import SHIPPED, SIZE, TINY, choices
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from ganlab.build import build
from ganlab.data.sampler import Sampler
from ganlab.data.store import Store
from ganlab.engine import Engine
from ganlab.interfaces import Domain
from ganlab.registry import registry
from ganlab.spec import merge, resolve

Make = Callable[..., Engine]

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
JOINT = {"runtime": {"joint": True}}


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
    """Forwards in one step: each generator's encoder and decoder, each image discriminator, D_emb."""

    encoder: int
    decoder: int
    discriminator: int
    embedding: int = 0


# Both generators, and both image discriminators, have the same count in all of these, since each way's turns mirror the
# other's. For G_ab and D_b:
#
# simultaneous  G turn: encode, decode x_a (fake); encode, decode the other way's fake (cycle); D_b scores the fake.
#               D turn: D_b, unmoved, scores x_b; its scores of the fake are known.
# + identity    G turn: encode, decode x_b as well. Joined: in one batch with x_a.
# + pool        D turn: D_b scores what the pool shows, perhaps another image; so three. Joined: in one batch with x_b.
# + D_emb       G turn: D_emb scores both embeddings; D turn: unmoved, it knows both scores.
# alternating   D_b's turn: encode, decode x_a; D_b scores x_b and the fake. G_ab's turn: D_b, moved, scores the fake.
#               G_ba's turn: encode, decode the other way's fake (cycle). G_ab has not moved between its own two uses.
#               Joined: x_b and the fake in one batch.
# + D_emb       its turn: encode x_a, score both embeddings; D_b's turn decodes that embedding. Each G turn: D_emb,
#               moved, scores the way's embedding: four in all.
#    own        G_ba has not moved when its turn comes: its embedding of x_b is still good.
#    both       G_ab's turn moves G_ba as well: x_b is encoded again. So G_ba has one encoding more than G_ab.
# wgan          five critic turns: encode, decode x_a; D_b scores x_b and the fake (joined: in one batch). G turn: fake,
#               cycle; D_b scores the fake.
# + penalty     and the points between, in each critic turn.
# + long start  in the first 25 steps as many critic turns as `long_updates` says: three.
# four updates  D turns: D_b scores x_b; moved, the fake: encode, decode x_a. G turn of ab: D_b, moved, scores the fake,
#               which is still good; G_ba encodes, decodes it (cycle). G turn of ba, both moved: G_ba encodes, decodes
#               x_b again, G_ab that fake. So G_ba has one of each more than G_ab.
TABLE: dict[str, tuple[dict[str, Any], Counts]] = {
    "simultaneous": ({}, Counts(2, 2, 2)),
    "simultaneous, noisy labels": ({"losses": NOISY}, Counts(2, 2, 2)),
    "simultaneous, identity": ({"losses": IDENTITY}, Counts(3, 3, 2)),
    "simultaneous, identity, joint": ({"losses": IDENTITY, **JOINT}, Counts(2, 2, 2)),
    "simultaneous, pool": ({"schedule": {"pool": 6}}, Counts(2, 2, 3)),
    "simultaneous, D_emb": ({"losses": ON_EMBEDDINGS, "discriminators": EMBEDDING}, Counts(2, 2, 2, 2)),
    "simultaneous, pool, D_emb": (
        {"losses": ON_EMBEDDINGS, "discriminators": EMBEDDING, "schedule": {"pool": 6}},
        Counts(2, 2, 3, 2),
    ),
    "zhu2017": ({"losses": IDENTITY, "schedule": {"pool": 6, "decay_from": 0.5}}, Counts(3, 3, 3)),
    "zhu2017, joint": ({"losses": IDENTITY, "schedule": {"pool": 6, "decay_from": 0.5}, **JOINT}, Counts(2, 2, 2)),
    "alternating own": (alternating(), Counts(2, 2, 3)),
    "alternating own, joint": (alternating(**JOINT), Counts(2, 2, 2)),
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
    "wgan, joint": (
        {"discriminators": CRITICS, "losses": WASSERSTEIN, "schedule": {"type": "wgan"}, **JOINT},
        Counts(7, 7, 6),
    ),
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
    "four updates": (four_updates("lsgan"), Counts(2, 2, 3)),
    "four updates, labels": (four_updates("class"), Counts(2, 2, 3)),
}
TWICE = {
    "alternating both, D_emb, noisy labels": {"generator/ba.features": 3},
    "four updates": {"generator/ba.features": 3, "generator/ba.decode": 3},
    "four updates, labels": {"generator/ba.features": 3, "generator/ba.decode": 3},
}
"""What differs from the mirror image."""


def expected(system: str) -> dict[str, int]:
    """Forwards of a step by the engine's own names for them."""
    counts = TABLE[system][1]
    forwards = {f"generator/{way}.features": counts.encoder for way in ("ab", "ba")}
    forwards |= {f"generator/{way}.decode": counts.decoder for way in ("ab", "ba")}
    forwards |= {f"discriminator/image/{domain}.forward": counts.discriminator for domain in "ab"}
    forwards |= {"discriminator/embedding.forward": counts.embedding} if counts.embedding else {}
    return forwards | TWICE.get(system, {})


def digest(*tensors: Tensor) -> str:
    found = hashlib.blake2b(digest_size=16)
    for tensor in tensors:
        found.update(tensor.detach().numpy().tobytes())
    return found.hexdigest()


class Witness:
    """Sees every forward of every network by a hook on its first convolution."""

    def __init__(self, engine: Engine) -> None:
        self.forwards: Counter[str] = Counter()
        self.images: Counter[str] = Counter()
        """How many images, or embeddings, each part was given."""
        self.met: Counter[tuple[str, str, str]] = Counter()
        """How often (which part, its weights, an image or embedding that it was given) met."""
        for name, module in engine.system.networks.modules.items():
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


def follow_pools(engine: Engine) -> Counter[str]:
    """How many images the pools show that were given to them "now", in this step, or "before", in the last one."""
    shown: Counter[str] = Counter()
    last: dict[int, Tensor] = {}

    def hook(pool: nn.Module, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        for when, fakes in (("now", inputs[0]), ("before", last.get(id(pool), ()))):
            shown[when] += sum(torch.equal(one, fake) for one in output for fake in fakes)
        last[id(pool)] = inputs[0].clone()

    for pool in engine.pools.values():
        pool.register_forward_hook(hook)
    return shown


def test_the_table_has_every_schedule_with_each_of_its_choices() -> None:
    schedules = [resolve(registry(), merge(TINY, patch)).schedule for patch, _ in TABLE.values()]
    for component in SHIPPED:
        if component.kind == "schedule":
            rows = [schedule for schedule in schedules if schedule["type"] == component.name]
            assert rows, f"no row has the schedule {component.name}: derive its counts, and what repeats them"
            for option, value in choices(component):
                assert any(row[option] == value for row in rows), f"no row has {component.name}'s {option} {value}"


@pytest.mark.parametrize("system", TABLE)
def test_forwards_of_a_step(make_engine: Make, system: str) -> None:
    patch = TABLE[system][0]
    engine = make_engine(patch, batch=BATCH, classes=10)
    witness, shown = Witness(engine), follow_pools(engine)
    steps = 3
    for _ in range(steps):
        engine.step()
    assert witness.forwards == {name: steps * count for name, count in expected(system).items()}
    assert engine.system.networks.forwards == witness.forwards
    if "joint" in system:
        apart = make_engine(merge(patch, {"runtime": {"joint": False}}), batch=BATCH)
        unjoined = Witness(apart)
        for _ in range(steps):
            apart.step()
        assert witness.images == unjoined.images
    else:
        assert witness.images == {name: BATCH * count for name, count in witness.forwards.items()}
    again = witness.again()
    if engine.pools:
        # What a pool shows is decided on the device, so the scores of the generators' turn can't be taken for it. There
        # D_b scored a fake that this step's pool passes on or, where D_b moves first, the next step's pool returns.
        met = shown["before" if "alternating" in system else "now"]
        assert met > 0
        assert sum(again.pop(f"discriminator/image/{domain}.forward", 0) for domain in "ab") == met
    assert again == {}


# batches of images that the networks are given in a step; `*` is each generator, or each domain
LESS: dict[str, tuple[dict[str, Any], dict[str, int]]] = {
    # a fake each way for both players, and nothing back
    "no cycle": (
        alternating(losses={"cycle": None}),
        {"generator/*.features": 1, "generator/*.decode": 1, "discriminator/image/*.forward": 3},
    ),
    "cycle of weight 0": (
        alternating(losses={"cycle": {"weight": 0}}),
        {"generator/*.features": 1, "generator/*.decode": 1, "discriminator/image/*.forward": 3},
    ),
    "identity of weight 0": (
        {"losses": {"identity": {"type": "identity", "weight": 0}}},
        {"generator/*.features": 2, "generator/*.decode": 2, "discriminator/image/*.forward": 2},
    ),
    # only embeddings are scored, so nothing is decoded: two scores in D_emb's turn, one in each generator's
    "embeddings alone": (
        alternating(losses={"adversarial": None, "cycle": None, **ON_EMBEDDINGS}, discriminators=EMBEDDING),
        {"generator/*.features": 1, "discriminator/embedding.forward": 4},
    ),
    # the discriminators have no term: theirs is no turn at all
    "no discriminators' term": (
        {"losses": {"adversarial": {"weight": {"discriminator": 0}}}},
        {"generator/*.features": 2, "generator/*.decode": 2, "discriminator/image/*.forward": 1},
    ),
    # nothing was scored in the generators' turn: the discriminators' scores both
    "no generators' term": (
        {"losses": {"adversarial": {"weight": {"generator": 0}}}},
        {"generator/*.features": 2, "generator/*.decode": 2, "discriminator/image/*.forward": 2},
    ),
}


@pytest.mark.parametrize("joint", [False, True], ids=["apart", "joint"])
@pytest.mark.parametrize("system", LESS)
def test_what_no_loss_asks_for_is_not_computed(make_engine: Make, system: str, joint: bool) -> None:
    patch, counts = LESS[system]
    engine = make_engine(merge(patch, {"runtime": {"joint": joint}}), batch=BATCH)
    witness = Witness(engine)
    engine.step()
    every = [(name, ("ab", "ba") if name.startswith("generator") else ("a", "b"), n) for name, n in counts.items()]
    assert witness.images == {name.replace("*", place): BATCH * n for name, places, n in every for place in places}
    assert witness.again() == {}


class NoWaiting(TorchDispatchMode):
    """Fails on the operations that bring a value to the host."""

    WAITS = ("_local_scalar_dense", "item", "nonzero", "is_nonzero", "equal", "allclose", "masked_select")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.split("::")[1]
        masked = (
            name.startswith("index")
            and isinstance(args[1], list | tuple)
            and any(getattr(i, "dtype", None) == torch.bool for i in args[1])
        )
        if masked or name in self.WAITS:
            raise AssertionError(f"aten::{name} makes the host wait")
        return func(*args, **(kwargs or {}))


class NoReading(TorchFunctionMode):
    """Fails on the methods that read a tensor without an operation that the dispatcher sees."""

    READS = (
        "item",
        "tolist",
        "numpy",
        "cpu",
        "__bool__",
        "__float__",
        "__int__",
        "__index__",
        "__array__",
        "__contains__",
    )

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in self.READS:
            raise AssertionError(f"Tensor.{func.__name__} makes the host wait")
        return func(*args, **(kwargs or {}))


@contextmanager
def no_synchronisation() -> Iterator[None]:
    with NoReading(), NoWaiting():
        yield


@pytest.mark.parametrize("system", TABLE)
def test_a_step_never_waits_for_the_device(make_engine: Make, system: str) -> None:
    engine = make_engine(merge(TABLE[system][0], {"ema_halflife_images": 100}), batch=BATCH, classes=10)
    with no_synchronisation():
        for _ in range(2):
            engine.step()
    assert len(engine.read()) == 2


def test_a_step_with_the_real_sampler_never_waits_either() -> None:
    stores = {}
    for index, name in enumerate("ab"):
        pixels = torch.randint(0, 256, (12, 3, SIZE, SIZE), generator=torch.Generator().manual_seed(index))
        held, train = torch.arange(3), torch.arange(3, 12)
        keys = tuple(map(str, range(12)))
        labels = torch.arange(12) % 2
        domain = Domain(name, 3, SIZE, SIZE, 2)
        stores[name] = Store(domain, keys, pixels.to(torch.uint8), labels, train, held, ())
    spec = resolve(registry(), TINY)
    system = build(registry(), spec, {name: store.domain for name, store in stores.items()})
    sampler = Sampler(stores, spec.data.batch, spec.data.flip, spec.seed, system.device, system.dtype)
    engine = Engine(system, sampler)
    with no_synchronisation():
        for _ in range(3):
            engine.step()


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
