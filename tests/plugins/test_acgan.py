"""AC-GAN's two losses against the equations, on its discriminator."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from ganlab_acgan import Class, ClassifyingPatch, Source
from ganlab_acgan.classes import classified
from ganlab_cyclegan.discriminator import Patch
from torch import Tensor, nn

import ganlab
from ganlab import Translation
from ganlab.engine.trainer import Trainer
from ganlab.interfaces.networks import Domain
from ganlab.system.forward_cache import ForwardCache
from helpers.systems import RandomImages

Make = Callable[..., Trainer]

PATCH = {
    "discriminators": {"image": {"type": "acgan", "width": 4, "layers": 1}},
    "losses": {"adversarial": {"type": "acgan_source", "of": {"type": "lsgan"}}, "classes": {"type": "acgan_class"}},
    "schedule": {"lr": 1e-30},
}


def unlikely(scores: Tensor, classes: Tensor) -> Tensor:
    """Returns -log P(C = c | x) by its definition, patch by patch, averaged over patches and images."""
    odds = scores[:, 1:].exp()
    chosen = [image[c] / image.sum(0) for image, c in zip(odds, classes.tolist(), strict=True)]
    return -torch.stack(chosen).log().mean()


def stirred(trainer: Trainer) -> dict[str, Any]:
    noise = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for module in trainer.system.networks.modules.values():
            for p in module.parameters():
                p.add_(0.1 * torch.randn(p.shape, generator=noise, dtype=p.dtype))
    return copy.deepcopy(trainer.system.networks.modules)


@pytest.mark.parametrize("schedule", ["simultaneous", "alternating"])
@pytest.mark.parametrize("pool", [0, 3])
@pytest.mark.parametrize("fakes", [True, False])
def test_terms_of_the_papers_equations(make_trainer: Make, fakes: bool, pool: int, schedule: str) -> None:
    patch = {
        **PATCH,
        "losses": PATCH["losses"] | {"classes": {"type": "acgan_class", "fakes": fakes}},
        "schedule": {"type": schedule, "lr": 1e-30, "pool": pool},
    }
    trainer = make_trainer(patch, classes=3)
    nets = stirred(trainer)
    trainer.step()
    (record,) = trainer.log.read(trainer.state)
    batch = RandomImages(classes=3)(0)
    for direction in ("ab", "ba"):
        a, b = direction
        g, d = nets[f"generator/{direction}"], nets[f"discriminator/image/{b}"]
        real, fake = d(batch.images[b]), d(g(batch.images[a]))
        assert fake.shape[1] == 4
        expected = {
            f"loss/generator/{direction}/adversarial": torch.mean((fake[:, 0] - 1) ** 2),
            f"loss/generator/{direction}/classes": unlikely(fake, batch.labels[a]),
            f"loss/discriminator/{direction}/adversarial/real": torch.mean((real[:, 0] - 1) ** 2),
            f"loss/discriminator/{direction}/classes/real": unlikely(real, batch.labels[b]),
        }
        if not pool:
            expected[f"loss/discriminator/{direction}/adversarial/fake"] = torch.mean(fake[:, 0] ** 2)
        if fakes:
            expected[f"loss/discriminator/{direction}/classes/fake"] = unlikely(fake, batch.labels[a])
        for name, value in expected.items():
            assert record[name] == pytest.approx(value.item(), abs=1e-10), name
        assert (f"loss/discriminator/{direction}/classes/fake" in record) == fakes


def test_the_discriminator_is_a_patchgan_with_an_output_for_each_class() -> None:
    domain = Domain("b", 3, 64, 64, 5)
    with torch.device("meta"):
        plain, classifying = Patch(domain), ClassifyingPatch(domain)
    counts = [sum(p.numel() for p in net.parameters()) for net in (plain, classifying)]
    # each output has 4x4 weights on 512 channels and a bias
    assert counts == [2_764_737, 2_764_737 + 5 * (512 * 16 + 1)]
    assert ClassifyingPatch(domain, width=2)(torch.zeros(2, 3, 64, 64)).shape == (2, 6, 6, 6)


def test_a_domain_without_classes_is_refused() -> None:
    with pytest.raises(ValueError, match="the images of domain b have no classes; its source needs labels"):
        ClassifyingPatch(Domain("b", 3, 64, 64))


class Learned(ganlab.Loss):
    """Has a parameter for the discriminators, made in `prepare`, and reads both directions."""

    trains = "discriminator"

    def prepare(self, t: Translation) -> None:
        self.scale = nn.Parameter(torch.ones(t.score(t.target).shape[1]))

    def discriminator(self, t: Translation) -> Tensor:
        return (t.score(t.target) * self.scale).sum() + t.reverse.score(t.reverse.target).sum()


def test_the_wrapped_loss_keeps_its_own_parameters_and_sees_one_score_everywhere(make_trainer: Make) -> None:
    trainer = make_trainer(PATCH, classes=3)
    t = Translation("ab", ForwardCache(trainer.system.networks, RandomImages(2)(0), {}, seed=0))
    loss = Source(Learned())
    assert loss.trains == "discriminator"
    loss.prepare(t)
    assert [p.shape for p in loss.parameters()] == [(1,)]
    d_a, d_b = (trainer.system.networks.discriminator(f"discriminator/image/{domain}") for domain in "ab")
    expected = d_b(t.target)[:, 0].sum() + d_a(t.source)[:, 0].sum()
    assert loss.generator(t) is None
    torch.testing.assert_close(loss.discriminator(t), expected)


def test_cross_entropy_is_a_mean_over_images_and_positions() -> None:
    scores = torch.randn(3, 5, 2, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    classes = torch.tensor([4, 0, 2])
    odds = scores.exp()
    each = [
        -torch.log(odds[i, classes[i], y, x] / odds[i, :, y, x].sum())
        for i in range(3)
        for y in range(2)
        for x in range(4)
    ]
    assert classified(scores, classes).item() == pytest.approx(torch.stack(each).mean().item(), rel=1e-12)


DIGITS = {"data": {"size": 32}, "discriminators": {"image": {"type": "digits", "width": 4, "labels": True}}}
COUNTS = {"a": 7, "b": 3}


@pytest.mark.parametrize(
    ("patch", "term"),
    [
        ({**PATCH, "losses": {"classes": {"type": "acgan_class"}}}, "classes's generator"),
        ({**PATCH, "losses": {"classes": {"type": "acgan_class", "fakes": False}}}, "classes's generator"),
        ({**DIGITS, "losses": {"of_fakes": {"type": "class_fake"}}}, "of_fakes's generator"),
    ],
)
@pytest.mark.parametrize("direction", ["ab", "ba"])
def test_domains_of_unequally_many_classes_are_refused(
    make_trainer: Make, patch: dict[str, Any], term: str, direction: str
) -> None:
    with pytest.raises(ganlab.SpecError) as refused:
        # with one direction there is no cycle
        make_trainer({**patch, "directions": [direction], "losses": {**patch["losses"], "cycle": None}}, classes=COUNTS)
    a, b = direction
    assert str(refused.value).startswith(
        f"losses.{term} term in direction {direction}: domain {a} has {COUNTS[a]} classes, and the discriminator of {b}"
        f" predicts {COUNTS[b]}; the numbers must be equal (loss '"
    )


def test_what_reads_labels_of_reals_alone_asks_nothing_of_the_other_domain(make_trainer: Make) -> None:
    patch = {**DIGITS, "losses": {"of_reals": {"type": "class_real"}}}
    trainer = make_trainer(patch, classes=COUNTS)
    nets = stirred(trainer)
    trainer.step()
    (record,) = trainer.log.read(trainer.state)
    batch = RandomImages(size=32, classes=COUNTS)(0)
    for direction, told in (("ab", 3), ("ba", 7)):
        scores = nets[f"discriminator/image/{direction[1]}"](batch.images[direction[1]])
        assert scores.shape[1] == told + 1
        expected = -scores.log_softmax(1)[range(len(scores)), batch.labels[direction[1]]].mean()
        assert record[f"loss/discriminator/{direction}/of_reals"] == pytest.approx(expected.item(), abs=1e-6)


def test_a_discriminator_that_tells_no_classes_is_refused(make_trainer: Make) -> None:
    spec = {"losses": {"classes": {"type": "acgan_class"}}}
    with pytest.raises(ganlab.SpecError, match="domain a has 3 classes, and the discriminator of b predicts 0;"):
        make_trainer(spec, classes=3)
    spec = {"data": {"size": 32}, "losses": {"classes": {"type": "class_real"}}}
    with pytest.raises(ganlab.SpecError, match="domain b has 3 classes, and the discriminator of b predicts 0;"):
        make_trainer(spec, classes=3)


def test_labels_are_needed(make_trainer: Make) -> None:
    losses = PATCH["losses"]
    with pytest.raises(ganlab.SpecError, match="the images of domain a have no classes"):
        make_trainer(PATCH)
    with pytest.raises(ganlab.SpecError, match="asks for labels of domain a, and its source has none"):
        make_trainer({"losses": {"classes": losses["classes"]}})
    assert Class().fakes
