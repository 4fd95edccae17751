"""`untouched_settings`: every way in which torch sets the precision of float32 is undone."""

from __future__ import annotations

import operator
from collections.abc import Callable

import pytest
import torch

from ganlab.determinism import reproducible, untouched_settings

PARTS = ("cuda.matmul", "cudnn", "cudnn.conv", "cudnn.rnn", "mkldnn", "mkldnn.matmul", "mkldnn.conv", "mkldnn.rnn")


def precisions() -> list[str]:
    newer = [torch.backends, *(operator.attrgetter(part)(torch.backends) for part in PARTS)]
    return [owner.fp32_precision for owner in newer]


@pytest.mark.skipif(not hasattr(torch.backends, "fp32_precision"), reason="torch has these settings since 2.9")
@pytest.mark.parametrize(
    "change",
    [
        *(
            lambda owner=owner, value=value: setattr(operator.attrgetter(owner)(torch), "fp32_precision", value)
            for owner, value in (
                ("backends", "tf32"),
                ("backends.cuda.matmul", "tf32"),
                ("backends.cudnn.conv", "ieee"),
                ("backends.mkldnn.matmul", "bf16"),
            )
        ),
        lambda: torch.set_float32_matmul_precision("high"),
    ],
)
def test_the_precision_of_float32_is_restored_whichever_setting_changed_it(change: Callable[[], None]) -> None:
    before = precisions()
    with untouched_settings():
        change()
        assert precisions() != before
    assert precisions() == before
    # torch refuses to read it if the newer settings contradict it
    assert torch.get_float32_matmul_precision() == "highest"
    with reproducible(torch.device("cpu"), "float32", 1):
        assert torch.get_float32_matmul_precision() == "highest"
    assert precisions() == before


@pytest.mark.parametrize("deterministic", [True, False])
def test_cudnn_is_deterministic_or_measures(deterministic: bool) -> None:
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.deterministic
    with reproducible(torch.device("cpu"), "float32", 1, deterministic):
        assert (cudnn.benchmark, cudnn.deterministic) == (not deterministic, deterministic)
    assert (cudnn.benchmark, cudnn.deterministic) == before
