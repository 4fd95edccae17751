"""Optimizers as CUDA devices need them: learning rates in tensors, and checkpoints that any device reads."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from ganlab.engine import optimizers
from helpers.systems import make_trainer


def test_a_rate_in_a_tensor_gives_the_steps_of_the_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tensor keeps its address, and a checkpoint has the number."""
    patch = {"schedule": {"decay_from": 0.0}}
    plain, placed = make_trainer(patch), make_trainer(patch)
    for _ in range(3):
        plain.step()
    monkeypatch.setattr(optimizers, "_on_cuda", lambda group: True)
    (group,) = placed.state.optimizers["generator"].param_groups
    rates, addresses = [], set()
    for _ in range(3):
        placed.step()
        assert isinstance(group["lr"], Tensor)
        rates.append(float(group["lr"]))
        addresses.add(group["lr"].data_ptr())
    assert rates == pytest.approx([2e-4, 2e-4 * 5 / 6, 2e-4 * 4 / 6])
    assert len(addresses) == 1
    for name, module in plain.state.modules().items():
        torch.testing.assert_close(placed.state.modules()[name].state_dict(), module.state_dict(), rtol=1e-6, atol=1e-9)
    saved = [trainer.state.state_dict()["optimizers"]["generator"]["param_groups"] for trainer in (plain, placed)]
    assert saved[0] == saved[1]
    assert saved[0][0]["lr"] == pytest.approx(2e-4 * 4 / 6, rel=1e-12)


@pytest.mark.parametrize("own", [False, True])
def test_an_optimizer_keeps_its_own_capturable(own: bool) -> None:
    parameter = nn.Parameter(torch.ones(3))
    saving, loading = (torch.optim.RMSprop([parameter], lr=0.5) for _ in range(2))
    parameter.grad = torch.ones(3)
    saving.step()
    saving.param_groups[0]["capturable"] = not own
    loading.param_groups[0]["capturable"] = own
    saved = optimizers.saved(saving, [0.25])
    before = copy.deepcopy(saved["param_groups"])
    optimizers.load(loading, saved)
    assert saved["param_groups"] == before
    assert loading.param_groups[0]["capturable"] is own
    assert loading.param_groups[0]["lr"] == 0.25
    assert torch.equal(loading.state[parameter]["square_avg"], saving.state[parameter]["square_avg"])


def test_capturable_is_set_where_an_optimizer_knows_it() -> None:
    parameters = [nn.Parameter(torch.ones(3))]
    adam, sgd = torch.optim.Adam(parameters), torch.optim.SGD(parameters)
    for optimizer in (adam, sgd):
        optimizers.make_capturable(optimizer)
    assert adam.param_groups[0]["capturable"] is True
    assert "capturable" not in sgd.param_groups[0]
    assert [optimizers.reads_rate_from_device(o.param_groups[0]) for o in (adam, sgd)] == [True, False]
    assert optimizers.reads_rate_from_device(torch.optim.SGD(parameters, fused=True).param_groups[0])
