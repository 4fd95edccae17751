"""CUT and FastCUT: PatchNCE against loops over patches, training against a plain loop."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from ganlab_cut.patch_nce import PatchNCE, info_nce, patches_at, projection_head
from torch import Tensor, nn

from ganlab import Translation
from ganlab.determinism import keyed
from ganlab.engine.trainer import Trainer
from ganlab.experiment import check
from ganlab.spec.files import merge
from ganlab.spec.models import Json
from ganlab.testing import check_loss
from helpers.one_turn import Linear, noise, number, one_turn
from helpers.plain_loop import LR, PlainLoop, adam, check_training, images, stirred_copies
from helpers.systems import SIZE

Make = Callable[..., Trainer]

ONE_WAY: dict[str, Any] = {"directions": ["ab"], "schedule": {"type": "alternating", "lr": LR}}


def cross_entropy(query: Tensor, keys: Tensor, positive: int, temperature: float) -> Tensor:
    """Eq. (2): the cross-entropy of the positive among all keys, for one query."""
    odds = torch.stack([torch.exp(torch.dot(query, key) / temperature) for key in keys])
    return -torch.log(odds[positive] / odds.sum())


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_a_query_is_compared_with_the_keys_of_its_own_image(temperature: float) -> None:
    queries, keys = (nn.functional.normalize(noise(3, 5, 4, seed=seed), dim=2) for seed in (0, 1))
    each = [cross_entropy(queries[n, s], keys[n], s, temperature) for n in range(3) for s in range(5)]
    expected = float(sum(each)) / 15
    assert number(info_nce(queries, keys, temperature)) == pytest.approx(expected, rel=1e-12)
    # equal patches cannot be told apart
    same = keys[:, :1].expand(-1, 5, -1)
    assert number(info_nce(queries, same, temperature)) == pytest.approx(math.log(5), rel=1e-12)


def test_patches_are_the_vectors_at_positions_counted_row_by_row() -> None:
    maps = noise(2, 3, 4, 6)
    found = patches_at(maps, torch.tensor([7, 0, 23]))
    expected = torch.stack([maps[:, :, 1, 1], maps[:, :, 0, 0], maps[:, :, 3, 5]], dim=1)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_a_head_has_two_layers_of_256_units() -> None:
    torch.manual_seed(0)
    head = projection_head(5).double()
    first, bias, second, offset = (p.detach().numpy() for p in head.parameters())
    assert (first.shape, second.shape) == ((256, 5), (256, 256))
    x = noise(7, 5)
    expected = np.maximum(x.numpy() @ first.T + bias, 0) @ second.T + offset
    np.testing.assert_allclose(head(x).detach().numpy(), expected, rtol=0, atol=1e-12)
    # the patch of a background that is 0 has a direction too
    assert head(torch.zeros(1, 5).double()).norm() > 0.1


def contrast_by_hand(
    g: Any, heads: Any, source: Tensor, translation: Tensor, draws: Callable[[int], Tensor], patches: int, flip: bool
) -> Tensor:
    """PatchNCE of a batch in plain PyTorch, patch by patch; `draws(count)` gives the next random numbers."""

    def encoded(x: Tensor) -> list[Tensor]:
        return [x, *g.features(x)]

    queries, compared = encoded(translation), source
    if flip:
        mirrored = [bool(u < 0.5) for u in draws(len(source))]
        assert len({*mirrored}) == 2
        compared = torch.stack([x.flip(-1) if m else x for x, m in zip(source, mirrored, strict=True)])
        queries = [torch.stack([x.flip(-1) if m else x for x, m in zip(q, mirrored, strict=True)]) for q in queries]
    keys = [k.detach() for k in encoded(compared)]
    layers = []
    for head, query, key in zip(heads, queries, keys, strict=True):
        width = query.shape[3]
        order = sorted(enumerate(draws(width * query.shape[2]).tolist()), key=lambda pair: pair[1])
        places = [divmod(place, width) for place, _ in order[:patches]]

        def vectors(maps: Tensor, head: Any = head, places: Any = places) -> Tensor:
            found = torch.stack([head(maps[row_column]) for row_column in [(slice(None), y, x) for y, x in places]])
            return found / found.norm(dim=1, keepdim=True)

        terms = []
        for q, k in zip(query, key, strict=True):
            made, others = vectors(q), vectors(k).detach()
            terms += [cross_entropy(made[s], others, s, 0.07) for s in range(len(places))]
        layers.append(torch.stack(terms).mean())
    return torch.stack(layers).mean()


@pytest.mark.parametrize(
    ("weight", "identity", "flip"), [(1.0, 1.0, False), (10.0, 0.0, True), (1.0, 0.5, True)], ids=["CUT", "FastCUT", ""]
)
def test_training_is_that_of_a_plain_loop(make_trainer: Make, weight: float, identity: float, flip: bool) -> None:
    """D's update, then one of the generator and the heads on GAN + weight * (PatchNCE(X) + identity * PatchNCE(Y))."""
    patches = 4
    options = {"weight": weight, "identity": identity, "flip": flip, "patches": patches}
    trainer = make_trainer({**ONE_WAY, "losses": {"cycle": None, "contrast": {"type": "patch_nce", **options}}})
    nets = stirred_copies(trainer)
    g: Any = nets["generator/ab"]
    d = nets["discriminator/image/b"]
    loss: Any = trainer.system.losses["contrast"]
    heads = copy.deepcopy(loss.heads["ab"])
    plain, heads_optimizer = PlainLoop(nets, adam, [[name] for name in nets]), adam(heads.parameters())

    def step(index: int) -> None:
        x = images(index)
        calls = iter(range(100))

        def draws(count: int) -> Tensor:
            return torch.from_numpy(keyed(0, "draw", index, 2, "ab", next(calls)).random(count))

        def generators() -> Tensor:
            total = torch.mean((d(g(x["a"])) - 1) ** 2)
            total = total + weight * contrast_by_hand(g, heads, x["a"], g(x["a"]), draws, patches, flip)
            if identity:
                term = contrast_by_hand(g, heads, x["b"], g(x["b"]), draws, patches, flip)
                total = total + weight * identity * term
            return total

        plain.update(
            ["discriminator/image/b"], lambda: torch.mean((d(x["b"]) - 1) ** 2) + torch.mean(d(g(x["a"])) ** 2)
        )
        heads_optimizer.zero_grad()
        plain.update(["generator/ab"], generators)
        heads_optimizer.step()

    before = copy.deepcopy(heads)
    check_training(trainer, plain, step, steps=2)
    torch.testing.assert_close(loss.heads["ab"].state_dict(), heads.state_dict(), rtol=1e-8, atol=1e-8)
    assert all(not torch.equal(p, q) for p, q in zip(heads.parameters(), before.parameters(), strict=True))


def prepared(loss: PatchNCE, player: str = "generator") -> Translation:
    t = Translation("ab", one_turn(Linear(noise(1, 3, SIZE, SIZE)), player))
    loss.prepare(t)
    loss.double()
    return t


def test_layers_are_counted_from_the_images() -> None:
    """The small residual generator has activations of 2, 4 and 8 channels."""
    for layers, channels in {None: [3, 2, 4, 8], (0, 2, -1): [3, 4, 8], (1,): [2]}.items():
        loss = PatchNCE(layers=layers)
        t = prepared(loss)
        heads: Any = loss.heads["ab"]
        assert [head[0].in_features for head in heads] == channels
        assert number(loss.generator(t)["source"]) > 0
    for wrong in (4, -5):
        with pytest.raises(
            ValueError, match=f"layers: {wrong} is not allowed, only -4 to 3: the generator has 3 activ"
        ):
            prepared(PatchNCE(layers=(0, wrong)))


def test_an_activation_of_one_position_is_left_out_unless_it_is_named() -> None:
    """With one patch there is no negative."""
    maps = [noise(2, 4, 4, 4), noise(2, 6, 1, 1)]
    images = noise(2, 3, 8, 8)
    assert PatchNCE()._chosen(images, maps) == [images, maps[0]]
    assert PatchNCE(layers=(0, 2))._chosen(images, maps) == [images, maps[1]]


def test_a_smaller_activation_gives_all_of_its_patches() -> None:
    """For 16 random patches that are all of 4 x 4 positions, the order does not matter."""
    values = []
    for patches in (16, 256):
        torch.manual_seed(0)
        loss = PatchNCE(patches=patches, layers=(-1,))
        values.append(number(loss.generator(prepared(loss))["source"]))
    assert values[0] == pytest.approx(values[1], rel=1e-12)


def test_the_identity_term_costs_nothing_if_it_is_left_out() -> None:
    loss = PatchNCE(identity=0)
    t = prepared(loss)
    assert set(loss.generator(t)) == {"source"}
    assert "identity" not in t.shapes()


def test_a_check_counts_the_parameters_of_the_heads(tiny: Json) -> None:
    patch = {"directions": ["ab"], "losses": {"cycle": None, "contrast": {"type": "patch_nce", "layers": [0]}}}
    found = check(merge(tiny, patch))["networks"]
    # one head, on colours
    expected = (3 * 256 + 256) + (256 * 256 + 256)
    assert {n["name"]: n["parameters"] for n in found}["loss/contrast"] == expected


def test_the_conformance_kit() -> None:
    check_loss(PatchNCE, directions=("ab",), identity=0.0, flip=True, layers=(0, -1), patches=8)
