"""The guarantees that plugins rely on, and the errors for plugins that break the contract."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from functools import partial
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ganlab
from ganlab import Translation, Turn
from ganlab.components.registry import Registry, installed
from ganlab.engine.trainer import Trainer
from ganlab.errors import RunError, SpecError
from ganlab.spec.files import merge
from ganlab.spec.models import Json
from ganlab.spec.resolve import resolve
from ganlab.system.build import build
from helpers.systems import TINY, Around, RandomImages


class Slope(ganlab.Loss):
    """The generators minimise the squared gradient of the scores at the fake, which needs a second derivative."""

    def generator(self, t: Translation) -> Tensor:
        fake = t.fake
        (slope,) = torch.autograd.grad(t.score(fake).sum(), fake, create_graph=True)
        return slope.square().sum()

    def discriminator(self, t: Translation) -> Tensor:
        return t.score(t.fake_for_discriminator).square().mean()


class Peeks(ganlab.Loss):
    """The discriminators' term reads `t.cycled`, which is made from the fake."""

    def __init__(self, cycled_first: bool = True) -> None:
        super().__init__()
        self.cycled_first = cycled_first

    def generator(self, t: Translation) -> Tensor:
        return -t.score(t.fake).mean()

    def discriminator(self, t: Translation) -> Tensor:
        before = t.cycled if self.cycled_first else None
        shown = t.fake_for_discriminator
        after = t.cycled
        assert before is None or before is after
        assert t.fake_for_discriminator is shown
        return t.score(shown).mean() + 0 * after.mean()


class OneElement(ganlab.Loss):
    """Terms of shapes () and (1,)."""

    def generator(self, t: Translation) -> dict[str, Tensor]:
        score = t.score(t.fake).mean()
        return {"plain": score, "one": score.reshape(1)}


class FailsLater(ganlab.Loss):
    """Raises in the second step."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def generator(self, t: Translation) -> Tensor:
        self.calls += 1
        # both directions of the dry run, then both directions of the first step
        if self.calls > 4:
            raise ArithmeticError("enough")
        return t.fake.mean()


class Normed(ganlab.Discriminator):
    """Has a batch norm but does not declare `stateful`."""

    def __init__(self, shape: ganlab.Domain) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(shape.channels, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 1, 3))

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.net(x)
        return scores


class Flat(ganlab.Discriminator):
    """Gives one score for each image, without positions."""

    def __init__(self, shape: ganlab.Domain) -> None:
        super().__init__()
        self.net = nn.Linear(shape.channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.net(x.mean((2, 3)))
        return scores


class Odd(ganlab.Schedule):
    """Gives turns with lists instead of tuples, or with mistakes."""

    def __init__(self, how: str = "lists", steps: int = 3) -> None:
        self.steps = steps
        self.how = how

    def turns(self, step: int) -> Iterable[Turn]:
        both: Any = ["ab", "ba"]
        return {
            "lists": [Turn("generator", both), Turn("discriminator", both)],
            "player": [Turn("critic", both)],
            "direction": [Turn("generator", ("aa",))],
            "string": [Turn("generator", "ab")],  # type: ignore[arg-type]
            "loss": [Turn("generator", both, losses=("adverserial",))],
            "sees": [Turn("discriminator", both, sees="sounds")],
        }[self.how]

    def optimizer(self, player: str, parameters: list[tuple[str, nn.Parameter]]) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=0.01)


@ganlab.hookimpl
def ganlab_losses() -> dict[str, type[ganlab.Loss]]:
    return {"slope": Slope, "peeks": Peeks, "one_element": OneElement, "fails_later": FailsLater}


@ganlab.hookimpl
def ganlab_discriminators() -> dict[str, type[ganlab.Discriminator]]:
    return {"normed": Normed, "flat": Flat, "plain": Around}


@ganlab.hookimpl
def ganlab_schedules() -> dict[str, type[ganlab.Schedule]]:
    return {"odd": Odd}


@pytest.fixture(scope="module")
def known() -> Registry:
    registry = Registry([*installed(), EntryPoint("contract", __name__, "ganlab")])
    assert registry.broken == []
    return registry


@pytest.fixture
def trainer(known: Registry) -> Callable[[Json], Trainer]:
    def make(patch: Json) -> Trainer:
        spec = resolve(merge(merge(TINY, {"runtime": {"precision": "float64"}}), patch), registry=known)
        images = RandomImages()
        return Trainer(build(spec, images.domains), images)

    return make


def weights(trainer: Trainer) -> Tensor:
    return torch.cat([p.detach().flatten() for m in trainer.state.modules().values() for p in m.parameters()])


def test_a_second_derivative_reaches_the_generator_through_shared_scores(trainer: Callable[[Json], Trainer]) -> None:
    losses: Json = {"adversarial": {"type": "slope"}, "cycle": None}
    trained = trainer({"losses": losses})
    generator = trained.system.networks.generator("ab")
    # the same term by hand, before anything moves
    images = RandomImages()(0).images
    fake = generator(images["a"])
    discriminator = trained.system.networks.discriminator("discriminator/image/b")
    (slope,) = torch.autograd.grad(discriminator(fake).sum(), fake, create_graph=True)
    expected = torch.autograd.grad(slope.square().sum(), list(generator.parameters()), allow_unused=True)
    seen: dict[int, Tensor] = {}

    def remember(key: int, gradient: Tensor) -> None:
        seen[key] = gradient.clone()

    for parameter in generator.parameters():
        parameter.register_hook(partial(remember, id(parameter)))
    trained.step()
    norm = 0.0
    for parameter, gradient in zip(generator.parameters(), expected, strict=True):
        if gradient is not None:
            norm += float(gradient.square().sum())
            torch.testing.assert_close(seen[id(parameter)], gradient, rtol=1e-9, atol=1e-12)
    assert norm > 0


@pytest.mark.parametrize("cycled_first", [True, False])
def test_a_discriminators_turn_sees_one_fake(trainer: Callable[[Json], Trainer], cycled_first: bool) -> None:
    losses: Json = {"adversarial": {"type": "peeks", "cycled_first": cycled_first}, "cycle": None}
    trained = trainer({"losses": losses})
    for _ in range(2):
        trained.step()
    assert trained.system.networks.forwards["generator/ab.decode"] == 2 * 2


def test_a_term_of_one_element_is_a_scalar(trainer: Callable[[Json], Trainer]) -> None:
    trained = trainer({"losses": {"adversarial": {"type": "one_element"}}})
    trained.step()
    (record,) = trained.log.read(trained.state)
    assert record["loss/generator/ab/adversarial/plain"] == record["loss/generator/ab/adversarial/one"]


def test_a_loss_that_fails_in_training_is_a_failed_run(trainer: Callable[[Json], Trainer]) -> None:
    trained = trainer({"losses": {"late": {"type": "fails_later"}}})
    trained.step()
    with pytest.raises(RunError, match=r"losses\.late's generator term in direction ab at step 2: enough") as failed:
        trained.step()
    assert failed.value.exit_code == 1


def test_scores_without_a_map_are_refused(trainer: Callable[[Json], Trainer]) -> None:
    with pytest.raises(
        SpecError, match=r"discriminators\.image: expected scores of shape \(N, K, h, w\), got \(2, 1\)"
    ):
        trainer({"discriminators": {"image": {"type": "flat"}}})


def test_a_wrapper_keeps_the_clamp_of_what_it_wraps(trainer: Callable[[Json], Trainer]) -> None:
    critic = {"type": "critic", "clamp": 0.001, "of": {"type": "patch", "width": 4, "layers": 1}}
    trained = trainer({"discriminators": {"image": {"type": "plain", "of": critic}}})
    trained.step()
    network = trained.system.networks.discriminator("discriminator/image/a")
    assert max(float(p.detach().abs().max()) for p in network.parameters()) <= 0.001


def test_turns_may_be_written_with_lists(trainer: Callable[[Json], Trainer]) -> None:
    trained = trainer({"schedule": {"type": "odd"}})
    before = weights(trained)
    trained.step()
    assert not torch.equal(before, weights(trained))


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("player", "expected player of generator, discriminator"),
        ("direction", "expected directions of ab, ba"),
        ("string", "expected directions of ab, ba"),
        ("loss", "expected losses of adversarial, cycle"),
        ("sees", "expected sees of None, images, embeddings"),
    ],
)
def test_a_turn_that_names_what_is_not_there_is_refused(
    trainer: Callable[[Json], Trainer], how: str, said: str
) -> None:
    trained = trainer({"schedule": {"type": "odd", "how": how}})
    with pytest.raises(RunError, match=said):
        trained.step()


def test_a_schedule_has_steps(trainer: Callable[[Json], Trainer]) -> None:
    with pytest.raises(SpecError, match="has steps 0, not a number from 1 up"):
        trainer({"schedule": {"type": "odd", "steps": 0}})


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("class X(ganlab.Loss):\n    trains = 'critics'", "X.trains is 'critics', not one of generator, discriminator"),
        (
            "class X(ganlab.Discriminator):\n    sees = 'sounds'",
            "X.sees is 'sounds', not one of images, pairs, embeddings",
        ),
        ("class X(ganlab.Generator):\n    pass", "X has neither encode nor features"),
        ("class X(ganlab.Discriminator):\n    pass", "X has neither features nor forward"),
        (
            "class X(ganlab.Loss):\n    def __init__(self, critic: ganlab.Discriminator): pass",
            "X.__init__ takes a discriminator, 'critic': name it in the spec's `discriminators` and read its scores"
            " with t.score",
        ),
        (
            "class X(ganlab.Loss):\n    def __init__(self, of: ganlab.Generator): pass",
            "X.__init__ takes a generator, 'of': the spec's `generator` is read with t.encode, t.decode and"
            " t.translate",
        ),
        ("class X(ganlab.Features):\n    pass", "X.size is 'missing', not a number of pixels"),
        ("class X(ganlab.Metric):\n    pass", "X has no measure"),
    ],
)
def test_a_class_that_breaks_the_contract_is_a_broken_plugin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, said: str
) -> None:
    interface = source.split("ganlab.")[1].split(")")[0].lower()
    kind = {"loss": "losses", "features": "features"}.get(interface, f"{interface}s")
    module = f"contract_{kind}"
    (tmp_path / f"{module}.py").write_text(
        f"import ganlab\n{source}\n@ganlab.hookimpl\ndef ganlab_{kind}():\n    return {{'x': X}}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, module, raising=False)
    (broken,) = Registry([EntryPoint("trial", module, "ganlab")]).broken
    assert said in broken.reason
