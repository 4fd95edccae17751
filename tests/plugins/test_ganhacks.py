"""The hacks against formulas written out, closed forms, counts, and a run that is saved and resumed."""

from __future__ import annotations

import copy
import itertools
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ganlab_cyclegan.discriminator import Patch
from ganlab_cyclegan.pool import Pool
from ganlab_cyclegan.schedules import Alternating
from ganlab_dcgan.gaussian import latents
from ganlab_embedding import EmbeddingDiscriminator
from ganlab_ganhacks.dropout import Dropout
from ganlab_ganhacks.instance_noise import InstanceNoise
from ganlab_ganhacks.interpolation import Interpolation, as_bytes, slerp
from ganlab_ganhacks.layer_noise import LayerNoise
from ganlab_ganhacks.minibatch import MinibatchDiscrimination, nearness
from ganlab_ganhacks.sgd_discriminator import SGDDiscriminator
from ganlab_wgan import Wgan
from scipy import stats
from torch import Tensor, nn
from torch.nn.functional import conv2d

import ganlab
from ganlab.components.options import signature
from ganlab.data.dataset import normalised
from ganlab.engine.trainer import Trainer
from ganlab.spec.files import merge
from ganlab.spec.models import Json
from helpers.experiments import FILES
from helpers.one_turn import noise
from helpers.paths import DOCS
from helpers.synchronisation import no_synchronisation
from helpers.systems import SHIPPED, RandomImages

Make = Callable[..., Trainer]

RESNET = {"type": "resnet", "width": 4, "blocks": 2}
PATCH = {"type": "patch", "width": 4, "layers": 1}


class Itself(ganlab.Discriminator):
    """Its scores are its input."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def test_instance_noise_is_gaussian_and_falls_linearly_to_nothing() -> None:
    noisy = InstanceNoise(Itself(), std=0.5, updates=4)
    x = noise(8, 3, 40, 40)
    torch.manual_seed(0)
    for expected in (0.5, 0.375, 0.25, 0.125, 0.0, 0.0):
        added = (noisy(x) - x).flatten()
        if expected:
            # the relative error of the standard deviation of 38,400 numbers is 1 / sqrt(2 * 38400) = 0.0036
            assert float(added.std()) == pytest.approx(expected, rel=0.02)
            assert float(added.mean()) == pytest.approx(0, abs=expected * 0.026)
            assert float((added / expected).pow(4).mean()) == pytest.approx(3, abs=0.25)
            assert float((added[1:] * added[:-1]).mean()) == pytest.approx(0, abs=expected**2 * 0.026)
        else:
            assert torch.equal(added, torch.zeros_like(added))
        noisy.after_update()


def test_instance_noise_is_the_global_generators_and_none_in_eval_mode() -> None:
    noisy = InstanceNoise(Itself(), std=0.5, updates=4)
    noisy.after_update()
    x = noise(2, 3, 4, 4).requires_grad_()
    torch.manual_seed(3)
    found = noisy(x)
    torch.manual_seed(3)
    torch.testing.assert_close(found, x + 0.375 * torch.randn(2, 3, 4, 4).double(), rtol=0, atol=1e-7)
    (gradient,) = torch.autograd.grad(found.square().sum() / 2, x)
    torch.testing.assert_close(gradient, found, rtol=0, atol=0)
    assert torch.equal(noisy.eval()(x), x)


def test_updates_reach_what_is_wrapped() -> None:
    within = InstanceNoise(Itself())
    InstanceNoise(within).after_update()
    assert int(within.done) == 1


def test_a_discriminator_with_noise_is_seen_as_what_it_wraps() -> None:
    assert InstanceNoise(EmbeddingDiscriminator(ganlab.Domain("embedding", 4, 4, 4), 2, 1)).sees == "embeddings"


class Layers(ganlab.Generator):
    """An encoder of two and a decoder of four 1x1 convolutions, without biases."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.ModuleList([nn.Conv2d(3, 3, 1, bias=False).double() for _ in range(2)])
        self.decoder = nn.ModuleList([nn.ConvTranspose2d(3, 3, 1, bias=False).double() for _ in range(4)])

    def features(self, images: Tensor) -> list[Tensor]:
        one = self.encoder[0](images)
        return [one, self.encoder[1](one)]

    def decode(self, embedding: Tensor) -> Tensor:
        for layer in self.decoder:
            embedding = layer(embedding)
        return embedding

    def matrices(self) -> list[Tensor]:
        """Returns the weights of the layers, each as the matrix W of y = W x."""
        return [layer.weight[:, :, 0, 0] for layer in self.encoder] + [
            layer.weight[:, :, 0, 0].T for layer in self.decoder
        ]


def times(matrix: Tensor, x: Tensor) -> Tensor:
    return torch.einsum("oi,nihw->nohw", matrix, x)


def test_each_layer_reads_noise_and_the_images_have_none_of_their_own() -> None:
    noisy = LayerNoise(Layers(), std=0.3)
    x = noise(2, 3, 4, 5)
    torch.manual_seed(5)
    found = noisy(x)
    torch.manual_seed(5)
    expected = x
    for matrix in noisy.of.matrices():
        expected = times(matrix, expected + 0.3 * torch.randn(2, 3, 4, 5).double())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    torch.manual_seed(5)
    features = noisy.features(x)
    torch.manual_seed(5)
    one = times(noisy.of.matrices()[0], x + 0.3 * torch.randn(2, 3, 4, 5).double())
    torch.testing.assert_close(features[0], one, rtol=0, atol=1e-6)
    assert torch.equal(noisy.eval()(x), noisy.of(x))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("layers", "hit"), [(1, 1), (3, 3), (9, 4)])
def test_the_first_layers_of_the_decoder_read_dropped_values_in_both_modes(
    layers: int, hit: int, training: bool
) -> None:
    dropping = Dropout(Layers(), p=0.25, layers=layers).train(training)
    x = noise(2, 3, 4, 5)
    torch.manual_seed(5)
    found = dropping(x)
    torch.manual_seed(5)
    first, second, *decoder = dropping.of.matrices()
    expected = times(second, times(first, x))
    for place, matrix in enumerate(decoder):
        kept = torch.rand(2, 3, 4, 5) >= 0.25 if place < hit else torch.full((2, 3, 4, 5), 0.75)
        expected = times(matrix, expected * kept / 0.75)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert torch.equal(dropping.encode(x), dropping.of.encode(x))


def test_a_quarter_is_dropped_and_the_mean_stays() -> None:
    class Identity(Layers):
        def decode(self, embedding: Tensor) -> Tensor:
            found: Tensor = self.decoder[0](embedding)
            return found

    within = Identity()
    within.decoder[0].weight.data = torch.eye(3).double()[:, :, None, None]
    torch.manual_seed(0)
    found = Dropout(within, p=0.25).decode(torch.ones(4, 3, 50, 50).double()).detach()
    # the fraction of 30,000 values that is dropped has a standard deviation of 0.0025
    assert float((found == 0).double().mean()) == pytest.approx(0.25, abs=0.0125)
    assert float(found.mean()) == pytest.approx(1, abs=0.017)


@pytest.mark.parametrize("wrapper", [LayerNoise, Dropout])
def test_a_copy_leaves_the_original_alone(wrapper: Any) -> None:
    """After a copy's forward the wrapped network has no hook left, and copy and original use their own weights."""
    original = wrapper(Layers())
    average = copy.deepcopy(original)
    x = noise(2, 3, 4, 5)

    def out(generator: nn.Module) -> Tensor:
        torch.manual_seed(1)
        found: Tensor = generator(x)
        return found

    assert torch.equal(out(average), out(original))
    with torch.no_grad():
        average.of.decoder[3].weight *= 2
    torch.testing.assert_close(out(average), 2 * out(original), rtol=1e-12, atol=0)
    assert not any(part._forward_pre_hooks for part in original.modules())


@pytest.mark.parametrize("wrapper", [LayerNoise, Dropout])
def test_a_generator_without_a_layer_is_refused(wrapper: Any) -> None:
    with pytest.raises(ValueError, match=r"^Generator has no convolution and no linear layer$"):
        wrapper(ganlab.Generator())


@pytest.mark.parametrize(("wrapper", "draws"), [("layer_noise", "randn"), ("dropout", "rand")])
def test_layers_that_directions_share_are_reached_once_a_use(
    make_trainer: Make, wrapper: str, draws: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """XGAN has eleven layers and shares six. A forward with noise draws once for each layer, one with dropout once for
    each of the first three decoder layers."""
    within = {"type": "xgan", "width": 2, "embedding": 8}
    trainer = make_trainer({"generator": {"type": wrapper, "of": within}})
    generators = [trainer.system.networks.generator(direction) for direction in ("ab", "ba")]
    assert generators[0].of.inner_decoder is generators[1].of.inner_decoder
    x = noise(2, 3, 16, 16)
    calls, draw = [], getattr(torch, draws)
    monkeypatch.setattr(torch, draws, lambda *args, **kwargs: calls.append(args) or draw(*args, **kwargs))
    generators[1](x)
    assert len(calls) == {"layer_noise": 11, "dropout": 3}[wrapper]


def test_nearness_is_the_papers_sum() -> None:
    """o(x_i)_b = sum_j exp(-sum_c |M_i,b,c - M_j,b,c|), in four nested loops; and its gradient."""
    f, transform = noise(4, 6), noise(6, 3, 2, seed=1)
    m = np.array([[[f[i] @ transform[:, b, c] for c in range(2)] for b in range(3)] for i in range(4)])
    expected = np.zeros((4, 3))
    for i, b, j in itertools.product(range(4), range(3), range(4)):
        expected[i, b] += math.exp(-sum(abs(m[i, b, c] - m[j, b, c]) for c in range(2)))
    np.testing.assert_allclose(nearness(f, transform), expected, rtol=1e-12, atol=0)
    assert torch.autograd.gradcheck(nearness, (f.requires_grad_(), transform.requires_grad_()))


def test_images_that_are_all_alike_are_nearest() -> None:
    transform = noise(6, 3, 2)
    assert torch.equal(nearness(noise(1, 6).expand(5, -1), transform), torch.full((5, 3), 5.0).double())
    far = nearness(1e4 * torch.arange(5).double()[:, None].expand(5, 6), transform)
    assert torch.equal(far, torch.ones(5, 3).double())


def test_minibatch_discrimination_scores_by_patch_and_by_batch() -> None:
    network = MinibatchDiscrimination(RandomImages().domains["a"], 4, 2, kernels=3, dimensions=2).double()
    x = noise(4, 3, 16, 16)
    read = network.net(x)
    near = nearness(read.mean((2, 3)), network.transform)
    weight, own = network.last.weight, read.shape[1]
    expected = conv2d(read, weight[:, :own], network.last.bias, padding=1)
    planes = near[:, :, None, None] * torch.ones(4, 3, *read.shape[2:]).double()
    expected = expected + conv2d(planes, weight[:, own:], padding=1)
    scores = network(x)
    assert scores.shape == (4, 1, 2, 2)
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-12)
    plain = Patch(RandomImages().domains["a"], 4, 2, norm="batch")
    more = 16 * 3 * 2 + 3 * 16
    assert sum(p.numel() for p in network.parameters()) == sum(p.numel() for p in plain.parameters()) + more
    assert [float(p.std()) for p in (network.transform.detach(), weight.detach())] == pytest.approx([0.02] * 2, rel=0.3)


def test_reals_and_fakes_are_batches_of_their_own(make_trainer: Make) -> None:
    image = {"type": "minibatch_discrimination", "width": 4, "layers": 1, "norm": "none"}
    patch = {"discriminators": {"image": image}, "schedule": {"type": "alternating"}}
    trainer = make_trainer(patch)
    sizes: list[int] = []
    for domain in "ab":
        network = trainer.state.modules()[f"discriminator/image/{domain}"]
        network.net[0].register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    trainer.step()
    # in each domain, the discriminator's turn scores the fake and the real, the generator's turn the fake
    assert sizes == [4] * 6


def test_discriminators_descend_by_the_gradient_alone(make_trainer: Make) -> None:
    """SGD by hand for the discriminators: p - lr * factor * (g + momentum * last step). The generators have Adam."""
    within = {"type": "simultaneous", "steps": 4, "decay_from": 0.5}
    schedule = {"type": "sgd_discriminator", "lr": 0.5, "momentum": 0.25, "of": within, "steps": None}
    trainer = make_trainer({"schedule": schedule})
    assert trainer.system.schedule.steps == 4
    assert type(trainer.state.optimizers["generator"]) is torch.optim.Adam
    network = trainer.state.modules()["discriminator/image/b"]
    gradients: list[list[Tensor]] = []
    trainer.state.optimizers["discriminator"].register_step_pre_hook(
        lambda *_: gradients.append([p.grad.clone() for p in network.parameters() if p.grad is not None])
    )
    expected = [p.detach().clone() for p in network.parameters()]
    velocity = [torch.zeros_like(p) for p in expected]
    for factor in (1.0, 1.0, 1.0, 0.5):
        trainer.step()
        for place, gradient in enumerate(gradients.pop()):
            velocity[place] = 0.25 * velocity[place] + gradient
            expected[place] -= 0.5 * factor * velocity[place]
        torch.testing.assert_close(list(network.parameters()), expected, rtol=0, atol=1e-12, check_stride=False)


def test_the_schedule_within_decides_all_else() -> None:
    within = Wgan(steps=30, critic_updates=3)
    schedule = SGDDiscriminator(within)
    schedule.directions = ("ab",)
    assert schedule.turns(0) == within.turns(0)
    assert {turn.directions for turn in schedule.turns(0)} == {("ab",)}
    cycle = SGDDiscriminator(Alternating(steps=10, decay_from=0.5, pool=3, fade_out={"identity": 4}))
    assert [cycle.weight("identity", "generator", step) for step in (0, 1, 4)] == [1.0, 0.75, 0.0]
    assert cycle.fade_out == {"identity": 4}
    assert [cycle.learning_rate("discriminator", step) for step in (0, 5, 8)] == [1.0, 1.0, 0.4]
    assert isinstance(cycle.pool(RandomImages().domains["a"]), Pool)


@pytest.mark.parametrize("angle", [1e-9, 0.3, math.pi / 2, 3.0])
def test_slerp_goes_round_at_an_even_pace(angle: float) -> None:
    """Between two points of a circle, t gives the point at t times the angle. The circle lies in five dimensions."""
    plane = torch.linalg.qr(noise(5, 2))[0]

    def at(angle: float) -> Tensor:
        return 3 * plane @ torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)

    for t in (0.0, 0.25, 0.5, 0.9, 1.0):
        torch.testing.assert_close(slerp(at(0), at(angle), t), at(t * angle), rtol=0, atol=1e-12)
    torch.testing.assert_close(slerp(at(1), at(1), 0.3), at(1), rtol=0, atol=1e-12)


def test_slerp_of_unequal_norms_is_the_papers_formula() -> None:
    p, q = noise(7), 2 * noise(7, seed=1)
    w = math.acos(float(p @ q) / float(p.norm() * q.norm()))
    for t in (0.0, 0.2, 0.7, 1.0):
        expected = math.sin((1 - t) * w) / math.sin(w) * p + math.sin(t * w) / math.sin(w) * q
        torch.testing.assert_close(slerp(p, q, t), expected, rtol=0, atol=1e-12)


def test_bytes_are_quantiles() -> None:
    z = torch.linspace(-6, 6, 4001, dtype=torch.float64)
    expected = np.minimum(np.floor(stats.norm.cdf(z) * 2**24), 2**24 - 1).astype(int)
    found = as_bytes(z).reshape(-1, 3).long() @ torch.tensor([65536, 256, 1])
    # two libraries round differently at an interval's end
    assert np.abs(found.numpy() - expected).max() <= 1
    assert (found.numpy() == expected).mean() > 0.999


def latents_of(source: Interpolation, keys: list[str], count: int, size: int = 16) -> Tensor:
    pictures = np.stack([source.image(key, size)[..., 0] for key in keys])
    return latents(normalised(torch.from_numpy(pictures)[:, None], torch.float64), count).flatten(1)


@pytest.mark.parametrize("sphere", [False, True])
def test_pictures_of_a_walk_hold_a_great_circle(sphere: bool) -> None:
    source = Interpolation(walks=30, steps=5, latents=60, sphere=sphere)
    keys = source.keys("a")
    z = latents_of(source, keys, 60).reshape(30, 5, 60)
    norms = z.norm(dim=2)
    if sphere:
        torch.testing.assert_close(norms, torch.full((30, 5), 60**0.5).double(), rtol=1e-5, atol=0)
    ends = z[:, [0, -1]].flatten()
    assert stats.kstest(ends.numpy(), "norm").pvalue > 0.01
    for walk in z:
        assert walk.abs().max() < 4
        for step, found in enumerate(walk):
            torch.testing.assert_close(found, slerp(walk[0], walk[-1], step / 4), rtol=0, atol=1e-3)
        assert not torch.allclose(walk[0], walk[-1], atol=0.5)
    assert len({source.image(key, 16).tobytes() for key in [*keys, *source.keys("b")]}) == 300


def test_too_small_a_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="100 latents need 300 pixels, and an image has 256"):
        Interpolation().image("a-00000-000", 16)


SYSTEMS: dict[str, dict[str, Any]] = {
    "instance_noise": {"discriminators": {"image": {"type": "instance_noise", "updates": 3, "of": PATCH}}},
    "layer_noise": {"generator": {"type": "layer_noise", "of": RESNET}},
    "dropout": {"generator": {"type": "dropout", "of": {"type": "layer_noise", "of": RESNET}}},
    "minibatch_discrimination": {
        "discriminators": {"image": {"type": "minibatch_discrimination", "width": 4, "layers": 1, "kernels": 4}}
    },
    "sgd_discriminator": {
        "schedule": {"type": "sgd_discriminator", "momentum": 0.5, "of": {"type": "alternating"}, "lr": 0.05}
    },
}


@pytest.mark.parametrize("system", SYSTEMS)
def test_from_a_saved_state_the_next_steps_are_the_same_to_the_bit(make_trainer: Make, system: str) -> None:
    patch = {"ema_halflife_images": 8, "schedule": {"lr": 2e-3}} | SYSTEMS[system]
    trainer = make_trainer(patch)
    for _ in range(2):
        trainer.step()
    again = make_trainer(patch)
    for name, module in trainer.state.modules().items():
        again.state.modules()[name].load_state_dict(module.state_dict())
    state = copy.deepcopy(trainer.state.state_dict())
    for _ in range(2):
        trainer.step()
    again.state.load_state_dict(state)
    for _ in range(2):
        again.step()
    for name, module in trainer.state.modules().items():
        torch.testing.assert_close(again.state.modules()[name].state_dict(), module.state_dict(), rtol=0, atol=0)
    assert all(np.isfinite(value) for record in again.log.read(again.state) for value in record.values())


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_step_never_waits_for_the_device(make_trainer: Make, system: str) -> None:
    trainer = make_trainer(SYSTEMS[system])
    with no_synchronisation():
        trainer.step()


def test_a_run_with_dropout_is_measured_again_to_the_byte(tiny: Json, tmp_path: Path) -> None:
    within = {"type": "alternating", "steps": 2}
    patch = {
        "generator": {"type": "dropout", "of": RESNET},
        "schedule": {"type": "sgd_discriminator", "of": within, "steps": None},
        "data": {"holdout": 0.75},
        "evaluation": {"metrics": ["content"]},
    }
    ganlab.run(merge(tiny, patch), out=tmp_path / "run")
    file = tmp_path / "run" / "evaluation.json"
    before = file.read_bytes()
    file.unlink()
    torch.manual_seed(99)
    ganlab.evaluate(tmp_path / "run")
    assert file.read_bytes() == before


def test_the_noise_counts_the_updates_of_its_own_discriminator(make_trainer: Make) -> None:
    """Each score is used in two turns of a step, and only one of the turns updates the network."""
    trainer = make_trainer(SYSTEMS["instance_noise"])
    for _ in range(2):
        trainer.step()
    for domain in "ab":
        assert int(trainer.state.modules()[f"discriminator/image/{domain}"].done) == 2  # type: ignore[call-overload]
        # the generator's turn scores the fake, the discriminator's turn the fake and the real
        assert trainer.system.networks.forwards[f"discriminator/image/{domain}.forward"] == 2 * 3


TABLE = (DOCS / "ganhacks.md").read_text("utf-8")
ROWS = re.findall(r"^\| (\d+) \| (.+) \| (.+) \|$", TABLE, re.M)


def test_the_table_has_all_seventeen() -> None:
    assert [int(number) for number, _, _ in ROWS] == list(range(1, 18))


@pytest.mark.parametrize(("number", "where"), [(number, where) for number, _, where in ROWS])
def test_what_the_table_names_is_there(number: str, where: str) -> None:
    names = re.findall(r"`(.+?)`", where)
    assert names or where.startswith(("always: ", "not here: "))
    for name in names:
        component, _, option = name.partition(".")
        if option == "json":
            assert name in FILES, name
            continue
        found = [signature(each.cls) for each in SHIPPED if each.name == component]
        assert found, f"there is no component {component}"
        assert not option or any(option in sign.model.model_fields for sign in found), name


def test_every_component_of_the_plugin_is_in_the_table() -> None:
    own = {each.name for each in SHIPPED if each.cls.__module__.startswith("ganlab_ganhacks.")}
    assert len(own) == 6
    assert own <= set(re.findall(r"`(.+?)`", TABLE))
