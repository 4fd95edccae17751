"""Fixtures: small systems, folders of pictures, a third party's installed plugin."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ganlab.components.registry import registry
from ganlab.engine.trainer import Trainer
from ganlab.spec.files import merge
from ganlab.spec.models import Json
from helpers import systems
from helpers.folders import draw
from helpers.paths import INSTALLED
from helpers.processes import Forker


def pytest_report_header(config: pytest.Config) -> str:
    """Prints the tests that this run leaves out, and the reasons."""
    left_out = config.getoption("markexpr") == "not faults"
    return "without the tests marked `faults`, which take long: `make faults` runs them" if left_out else ""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints what the tests counted: `record_property("counted", text)`."""
    for report in terminalreporter.getreports("passed"):
        for name, text in report.user_properties:
            if name == "counted":
                terminalreporter.write_line(f"counted: {text}")


@pytest.fixture(scope="session")
def forker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forker]:
    """Starts ganlab in forks of one process, which imports torch once."""
    forker = Forker(tmp_path_factory.mktemp("forker"))
    yield forker
    forker.close()


@pytest.fixture
def make_trainer() -> Callable[..., Trainer]:
    """`make_trainer(patch)` returns a trainer of TINY, patched, on noise in float64."""
    return systems.make_trainer


@pytest.fixture
def pictures(tmp_path: Path) -> dict[str, Path]:
    """{domain: a folder of a dozen small pictures}."""
    return draw(tmp_path)


@pytest.fixture
def tiny(pictures: dict[str, Path]) -> Json:
    """TINY on those pictures."""
    sources = {domain: {"path": str(folder)} for domain, folder in pictures.items()}
    patched: Json = merge(systems.TINY, {"data": sources})
    return patched


@pytest.fixture
def cheap(tiny: Json, trial: None) -> Json:
    """A spec that takes a few milliseconds for a step and is trained by plain gradient descent."""
    return merge(  # type: ignore[no-any-return]
        tiny,
        {
            "generator": {"type": "sharing"},
            "discriminators": {"image": {"type": "plain"}},
            "losses": {"cycle": None},
            "schedule": {"type": "exploding", "steps": 12},
            "checkpoints": {"every": 4},
            "samples": {"every": 3},
        },
    )


@pytest.fixture
def trial(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Installs the plugin `ganlab-trial`, and keeps the cache of features in a folder of the test's own."""
    monkeypatch.syspath_prepend(str(INSTALLED))
    monkeypatch.setenv("GANLAB_CACHE", str(tmp_path / "cache"))
    registry.cache_clear()
    yield
    registry.cache_clear()
