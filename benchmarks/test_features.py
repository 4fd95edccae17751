"""Feature vectors of 2,000 images of 64 pixels: images a second, and where the time goes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ganlab.determinism import one_thread
from ganlab.evaluation.features import BATCH, PIXELS, Extractor, resized
from ganlab.interfaces.metrics import Images
from ganlab.interfaces.networks import Features
from ganlab.spec.models import Evaluation
from ganlab.spec.resolve import resolve_evaluation
from ganlab.system.build import build_features

COUNT, SIDE, ROUNDS = 2000, 64, 5


def seconds(compute: Callable[[], object]) -> float:
    started = time.perf_counter()
    compute()
    return time.perf_counter() - started


def pictures(count: int) -> Images:
    random = np.random.default_rng(0)
    return Images([random.integers(0, 256, (SIDE, SIDE, 3), np.uint8) for _ in range(count)], real=True)


def feature_network() -> Features:
    resolved = resolve_evaluation(Evaluation(features="lite0"), "benchmark").features_component
    assert resolved is not None
    return build_features(resolved)


def test_two_thousand_images(benchmark: Any, tmp_path: Path) -> None:
    network = feature_network()
    images = pictures(COUNT)
    Extractor(network, "warm-up", torch.device("cpu"))(images.take(range(2 * BATCH)))
    extractor = Extractor(network, "lite0", torch.device("cpu"), tmp_path)
    benchmark.pedantic(lambda: extractor(images), rounds=1)
    total = benchmark.stats.stats.median

    def resize() -> None:
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            list(pool.map(resized, images.pixels, [network.size] * COUNT))

    kept = seconds(lambda: Extractor(network, "lite0", torch.device("cpu"), tmp_path)(pictures(COUNT)))
    resizing = seconds(resize)
    benchmark.extra_info.update(images_a_second=COUNT / total, resizing=resizing / total, kept=kept / total)
    print(
        f"\nlite0, {COUNT:,} images of {SIDE} pixels, {torch.get_num_threads()} threads: {COUNT / total:.1f} images a"
        f" second; of {total:.1f} s resizing alone is {resizing / total:.1%}, nearly all of the rest the network; from"
        f" the cache {kept / total:.1%}"
    )


def test_batches(benchmark: Any) -> None:
    """An image in a batch that fits a core's cache, beside one in a batch of 32, on one thread, alternately."""
    network = feature_network().to(memory_format=torch.channels_last)
    small = PIXELS // network.size**2

    def an_image(batch: int) -> float:
        images = (torch.rand(batch, network.size, network.size, 3) * 2 - 1).permute(0, 3, 1, 2)
        with torch.inference_mode():
            return seconds(lambda: network(images)) / batch

    with one_thread():
        an_image(BATCH), an_image(small)
        ratios = [an_image(BATCH) / an_image(small) for _ in range(ROUNDS)]
        benchmark.pedantic(lambda: an_image(small), rounds=1)
    benchmark.extra_info.update(ratio=statistics.median(ratios))
    print(
        f"\nlite0, {BATCH} / {small} images: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    )


def test_channels_last(benchmark: Any) -> None:
    """The order of memory in which the extractor keeps a network, beside the usual one, alternately."""
    network = feature_network()
    batch = torch.rand(BATCH, 3, network.size, network.size) * 2 - 1

    def forward(order: torch.memory_format) -> float:
        network.to(memory_format=order)
        ordered = batch.contiguous(memory_format=order)
        with torch.inference_mode():
            return seconds(lambda: network(ordered))

    for order in (torch.contiguous_format, torch.channels_last):
        forward(order)
    ratios = [forward(torch.contiguous_format) / forward(torch.channels_last) for _ in range(ROUNDS)]
    benchmark.pedantic(lambda: forward(torch.channels_last), rounds=1)
    benchmark.extra_info.update(ratio=statistics.median(ratios))
    print(
        f"\nlite0, contiguous / channels_last: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    )
