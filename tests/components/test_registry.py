"""Plugins: a third party's plugin is found and works; a broken one is named, with the reason, and the others work."""

from __future__ import annotations

import importlib
import json
import os
import random
import subprocess
import sys
import warnings
from collections.abc import Callable
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jsonschema import Draft202012Validator

from ganlab.components.options import KINDS
from ganlab.components.registry import HOOKS, Component, Registry, installed, registry
from ganlab.errors import SpecError
from ganlab.interfaces.networks import Domain
from ganlab.spec.files import merge
from ganlab.spec.models import Json
from ganlab.spec.resolve import resolve
from ganlab.system.build import build
from helpers.processes import Forker, Outcome
from helpers.systems import TINY

LOSS = """
import ganlab
class Some(ganlab.Loss):
    '''Some loss. Nothing more is said.'''
    def __init__(self, {parameters}):
        super().__init__()
@ganlab.hookimpl
def ganlab_losses():
    return {{"{name}": Some}}
"""


def loss(name: str, parameters: str = "margin: float = 1.0") -> str:
    return LOSS.format(name=name, parameters=parameters)


HEAD = "import ganlab\nclass Some(ganlab.Loss): pass\n"
HOOK = "@ganlab.hookimpl\ndef ganlab_losses():\n    return "

BROKEN = {
    # how it fails to import
    "import_error": ("import a_module_of_no_such_name", "ModuleNotFoundError: No module named 'a_module_of_no"),
    "name_error": ("from ganlab import Lost", "ImportError: cannot import name 'Lost'"),
    "syntax_error": ("def f(:\n", "SyntaxError: invalid syntax"),
    "system_exit": ("raise SystemExit('I leave')", "SystemExit: I leave"),
    "mute": ("raise RuntimeError", "RuntimeError: no message"),
    "verbose": ("raise ValueError('first\\nsecond\\n\\tthird')", "ValueError: first second third"),
    # what is no Exception
    "skip": ("import pytest; pytest.skip('not here', allow_module_level=True)", "Skipped: not here"),
    "panic": ("class Panic(BaseException): pass\nraise Panic('boom')", "Panic: boom"),
    "cancelled": ("import asyncio; raise asyncio.CancelledError", "CancelledError: no message"),
    "generator_exit": ("raise GeneratorExit", "GeneratorExit: no message"),
    # its hooks
    "misspelt": (HEAD + "@ganlab.hookimpl\ndef ganlab_loses(): return {'m': Some}", "did you mean 'ganlab_losses'?"),
    "unmarked": (HEAD + "def ganlab_losses(): return {'m': Some}", "ganlab_losses is not marked with @ganlab.hookimpl"),
    "hookless": (
        HEAD,
        "has none of the hooks ganlab_callbacks, ganlab_discriminators, ganlab_features, ganlab_generators, ",
    ),
    "argument": (HEAD + "@ganlab.hookimpl\ndef ganlab_losses(spec): return {'m': Some}", "{'spec'}"),
    "raising": (HEAD + HOOK + "1 / 0", "ZeroDivisionError: division by zero"),
    "forgetful": (HEAD + HOOK + "None", "ganlab_losses gives None, not {name: class}"),
    "listing": (HEAD + HOOK + "[Some]", "not {name: class}"),
    # what they give
    "instance": (HEAD + HOOK + "{'m': Some()}", "ganlab_losses gives 'm': Some(), which is no Loss class"),
    "module": (HEAD + HOOK + "{'m': ganlab}", "which is no Loss class"),
    "foreign": (HEAD + HOOK + "{'m': ganlab.Generator}", "which is no Loss class"),
    "numbered": (HEAD + HOOK + "{3: Some}", "ganlab_losses gives 3: "),
    "half": (HEAD + HOOK + "{'half_good': Some, 'm': int}", "which is no Loss class"),
    "untextual": (loss("m") + "Some.__doc__ = 3\n", "Some.__doc__ is no text"),
    # names that a spec, a schema or a terminal can't hold
    "braces": (HEAD + HOOK + "{'{x}': Some}", "the loss name '{x}' is not allowed: at most 100 letters, digits"),
    "surrogate": (HEAD + HOOK + "{'\\udcff': Some}", "the loss name '\\udcff' is not allowed"),
    "control": (HEAD + HOOK + "{'a\\x1b[2J\\n': Some}", "the loss name 'a\\x1b[2J\\n' is not allowed"),
    # their constructors
    "untyped": (loss("m", "margin=1.0"), "Some.__init__ gives its option 'margin' no type"),
    "variadic": (loss("m", "*margins: float"), "Some.__init__ takes *margins: float"),
    "keywords": (loss("m", "**options: float"), "Some.__init__ takes **options: float"),
    "reserved": (loss("m", "weight: float = 1.0"), "an option 'weight'; that name is reserved"),
    "unjson": (loss("m", "margin: object = (1, 2)"), "a default that JSON can't keep: (1, 2) comes back as [1, 2]"),
    "mistyped": (loss("m", "margin: float = 'wide'"), "a default that is not allowed, 'wide': it should be a number"),
    # names that another plugin has
    "avid": (loss("lsgan"), "the loss name 'lsgan' is taken by plugin 'cyclegan' of ganlab "),
    "second": (loss("shared"), "the loss name 'shared' is taken by plugin 'first' of first 2.5"),
}
"""{package: (its module, what its reason says)}; each has an entry point of its own name."""

FINE = {
    "settings": """
import os, random, warnings
import numpy, torch
torch.set_default_dtype(torch.float64)
torch.set_default_device("meta")
torch.set_num_threads(torch.get_num_threads() + 1)
torch.set_float32_matmul_precision("medium")
torch.use_deterministic_algorithms(True, warn_only=True)
torch.set_grad_enabled(False)
torch.autograd.set_detect_anomaly(True)
torch.set_flush_denormal(True)
torch.backends.cudnn.benchmark = torch.backends.cudnn.deterministic = True
torch.backends.cudnn.enabled = torch.backends.mkldnn.enabled = torch.backends.cudnn.allow_tf32 = False
torch.manual_seed(1); numpy.random.seed(1); random.seed(1)
numpy.seterr(all="raise")
warnings.simplefilter("error")
os.chdir("/")
"""
    + loss("settings"),
    "first": loss("shared"),
    "printing": "print('hello from a plugin')\n" + loss("printed"),
    "method": "import types\n" + loss("attributed") + "plugin = types.SimpleNamespace(ganlab_losses=ganlab_losses)",
}
"""{package: its module}."""


def write_package(site: Path, package: str, module: str, points: dict[str, str], metadata: bool = True) -> None:
    """Writes into `site` what an installer would leave there."""
    (site / f"{package}_module.py").write_text(module)
    info = site / f"{package}-2.5.dist-info"
    info.mkdir()
    if metadata:
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 2.5\n")
    lines = "".join(f"{name} = {value}\n" for name, value in points.items())
    (info / "entry_points.txt").write_text(f"[ganlab]\n{lines}[console_scripts]\nnothing = nothing:nothing\n")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of third parties' packages, most of them broken."""
    site = tmp_path_factory.mktemp("site")
    for package, (module, _) in BROKEN.items():
        write_package(site, package, module, {package: f"{package}_module"})
    for package, module in FINE.items():
        value = f"{package}_module:plugin" if package == "method" else f"{package}_module"
        write_package(site, package, module, {package: value})
    values = {"absent": "no_such_module_at_all", "lost": "absent_module:nothing", "wordy": "two words!"}
    write_package(site, "absent", "", values)
    write_package(site, "alias", loss("alias"), {"cyclegan": "alias_module"})
    write_package(site, "twin_a", loss("twin_a"), {"twin": "twin_a_module"})
    write_package(site, "twin_b", loss("twin_b"), {"twin": "twin_b_module"})
    write_package(site, "nameless", loss("anonymous"), {"nameless": "nameless_module"}, metadata=False)
    return site


def read_with(path: list[str]) -> Registry:
    """Returns the registry that a process with this path would have."""
    registry()  # loaded once per process, so it must be loaded with ganlab's own plugins first
    before = sys.path, set(sys.modules)
    sys.path = path
    importlib.invalidate_caches()
    try:
        return Registry(installed())
    finally:
        sys.path = before[0]
        for name in set(sys.modules) - before[1]:
            if name.endswith("_module"):
                del sys.modules[name]


@pytest.fixture(scope="module")
def crowded(site: Path) -> Registry:
    """The registry with all packages of `site` installed."""
    return read_with([str(site), *sys.path])


def reason(crowded: Registry, plugin: str, package: str) -> str:
    (found,) = (b for b in crowded.broken if (b.plugin, b.package) == (plugin, package))
    assert found.version == "2.5"
    assert "\n" not in found.reason
    return found.reason


@pytest.mark.parametrize("package", BROKEN)
def test_a_broken_plugin_is_named_with_its_reason(crowded: Registry, package: str) -> None:
    assert BROKEN[package][1] in reason(crowded, package, package)


@pytest.mark.parametrize(
    ("plugin", "package", "said"),
    [
        ("absent", "absent", "ModuleNotFoundError: No module named 'no_such_module_at_all'"),
        ("lost", "absent", "AttributeError: module 'absent_module' has no attribute 'nothing'"),
        ("wordy", "absent", "ValueError: its entry point 'two words!' names no module"),
        ("cyclegan", "alias", "ValueError: the plugin name 'cyclegan' is taken by ganlab "),
        ("twin", "twin_b", "ValueError: the plugin name 'twin' is taken by twin_a 2.5"),
    ],
)
def test_an_entry_point_that_leads_nowhere_or_takes_a_name_is_broken(
    crowded: Registry, plugin: str, package: str, said: str
) -> None:
    assert said in reason(crowded, plugin, package)


def test_nothing_else_is_broken_and_nothing_of_a_broken_plugin_is_there(crowded: Registry) -> None:
    assert len(crowded.broken) == len(BROKEN) + 5
    own = {(c.kind, c.name, c.plugin, c.package) for c in registry().components}
    found = {(c.kind, c.name, c.plugin, c.package) for c in crowded.components}
    assert own <= found
    assert found - own == {
        ("loss", "shared", "first", "first"),
        ("loss", "printed", "printing", "printing"),
        ("loss", "settings", "settings", "settings"),
        ("loss", "attributed", "method", "method"),
        ("loss", "twin_a", "twin", "twin_a"),
        ("loss", "anonymous", "nameless", "unknown"),
        # beside a class that is none
        ("loss", "half_good", "half", "half"),
    }


def settings() -> list[str]:
    """Everything that results depend on and that an import may change, as text."""
    cudnn = torch.backends.cudnn
    found = [
        *(torch.get_default_dtype(), torch.get_default_device(), torch.get_num_threads(), torch.is_grad_enabled()),
        *(torch.get_float32_matmul_precision(), torch.get_deterministic_debug_mode(), torch.is_anomaly_enabled()),
        *(cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32, torch.backends.mkldnn.enabled),
        *(torch.get_rng_state().sum(), random.getstate(), np.random.get_state()),  # noqa: NPY002
        *(np.geterr(), warnings.filters, os.getcwd(), torch.tensor(1e-310, dtype=torch.float64) * 1),
    ]
    return [str(value) for value in found]


def test_an_import_changes_no_setting_of_the_process(site: Path) -> None:
    registry()
    before = settings()
    read_with([str(site), *sys.path])
    assert settings() == before


def test_a_keyboard_interrupt_during_an_import_stops_the_command(tmp_path: Path) -> None:
    write_package(tmp_path, "stopped", "raise KeyboardInterrupt", {"stopped": "stopped_module"})
    with pytest.raises(KeyboardInterrupt):
        read_with([str(tmp_path), *sys.path])


def test_what_is_not_broken_still_builds(crowded: Registry) -> None:
    spec = resolve(merge(TINY, {"losses": {"mine": {"type": "shared", "margin": 2.5}}}), registry=crowded)
    system = build(spec, {name: Domain(name, 3, 16, 16) for name in "ab"})
    assert list(system.losses) == ["adversarial", "cycle", "mine"]


def test_an_unknown_component_is_refused_with_the_nearest_and_the_broken_plugins(crowded: Registry) -> None:
    with pytest.raises(SpecError) as caught:
        resolve(merge(TINY, {"losses": {"mine": {"type": "shard"}}}), registry=crowded)
    said = str(caught.value)
    start, others = said.split("; did you mean 'shared'? known are: ")
    assert start.startswith("spec: losses.mine: there is no loss 'shard'; plugin 'absent' is broken: ")
    assert "plugin 'hookless' is broken: TypeError: has none of the hooks" in start
    assert "broken" not in others
    assert "\n" not in said


def test_the_order_in_which_packages_lie_on_the_path_decides_nothing(site: Path, crowded: Registry) -> None:
    other = read_with([*sys.path, str(site)])
    assert {b[:3] for b in other.broken} == {b[:3] for b in crowded.broken}
    assert [c[:2] + c[3:] for c in other.components] == [c[:2] + c[3:] for c in crowded.components]


@pytest.mark.parametrize("damaged", [b"[ganlab]\nno equals sign\n", b"[ganlab]\nx = \xff\xfe\n"])
def test_a_package_with_damaged_entry_points_harms_nothing_else(tmp_path: Path, damaged: bytes) -> None:
    write_package(tmp_path, "damaged", "", {})
    (tmp_path / "damaged-2.5.dist-info" / "entry_points.txt").write_bytes(damaged)
    write_package(tmp_path, "other", loss("other"), {"other": "other_module"})
    found = read_with([str(tmp_path), *sys.path, str(tmp_path)])
    (broken,) = found.broken
    assert broken[:3] == ("entry_points.txt", "damaged", "2.5")
    assert broken.reason.startswith("can't be read: ")
    assert {(c.kind, c.name) for c in found.components} == {
        *((c.kind, c.name) for c in registry().components),
        ("loss", "other"),
    }


def test_nothing_of_ganlab_itself_is_broken() -> None:
    assert registry().broken == []


def test_every_kind_of_component_has_its_hook() -> None:
    assert set(HOOKS) == set(KINDS)
    assert set(KINDS) == {c.kind for c in registry().components}


def test_a_component_says_what_it_is_in_one_sentence_of_its_own() -> None:
    for component in registry().components:
        about = component.as_dict()["about"]
        assert about
        assert "\n" not in about
    silent = type("Silent", (KINDS["loss"],), {})
    assert Component("loss", "silent", silent, "p", "k", "1").as_dict()["about"] == ""


def test_an_entry_point_of_no_package_is_of_an_unknown_one() -> None:
    found = Registry([EntryPoint("folder", "ganlab.data.folder", "ganlab")])
    assert [(c.name, c.package, c.version) for c in found.components] == [("folder", "unknown", "unknown")]


# --- through the command line, as a third party's user would

HINGE = '''"""Hinge adversarial loss (arXiv:1705.02894)."""
from typing import Annotated
from pydantic import Field
from torch.nn.functional import relu
import ganlab

class Hinge(ganlab.Loss):
    """max(0, margin - D(real)) + max(0, margin + D(fake)); the generator maximises D(fake)."""
    def __init__(self, margin: Annotated[float, Field(gt=0)] = 1.0):
        super().__init__()
        self.margin = margin
    def generator(self, t):
        return -t.score(t.fake).mean()
    def discriminator(self, t):
        return (relu(self.margin - t.score(t.target)) + relu(self.margin + t.score(t.fake_for_discriminator))).mean()

@ganlab.hookimpl
def ganlab_losses():
    return {"hinge": Hinge}
'''

PYPROJECT = """[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "ganlab-hinge"
version = "0.3.1"

[project.entry-points.ganlab]
hinge = "ganlab_hinge"
"""


@pytest.fixture(scope="module")
def hinge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed a third party's package with the hinge loss."""
    if find_spec("pip") is None:
        pytest.skip("this environment has no pip to install a plugin with")
    package, target = tmp_path_factory.mktemp("package"), tmp_path_factory.mktemp("target")
    (package / "ganlab_hinge").mkdir()
    (package / "ganlab_hinge" / "__init__.py").write_text(HINGE)
    (package / "pyproject.toml").write_text(PYPROJECT)
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", "--quiet", *offline, "--target", str(target), str(package)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=package)
    assert done.returncode == 0, done.stderr
    return target


Command = Callable[..., Outcome]


@pytest.fixture(scope="module")
def ganlab(forker: Forker) -> Command:
    """`ganlab("check", ..., paths=[...], folder=...)`: the command line in another process, with plugins in `paths`."""

    def run(*words: str, paths: list[Path], folder: Path) -> Outcome:
        return forker.run(*words, paths=[*map(str, paths)], folder=str(folder), errors=str(forker.errors))

    return run


def test_plugins_lists_a_third_partys_component_and_every_broken_plugin(
    ganlab: Command, hinge: Path, site: Path
) -> None:
    done = ganlab("plugins", "--json", paths=[hinge, site], folder=hinge)
    assert done.code == 0, done.errors
    assert "hello from a plugin" in done.errors
    found = json.loads(done.said)
    by_name = {(c["kind"], c["name"]): c for c in found["components"]}
    ours = by_name["loss", "hinge"]
    assert (ours["plugin"], ours["package"], ours["version"]) == ("hinge", "ganlab-hinge", "0.3.1")
    assert ours["about"].startswith("max(0, margin - D(real)) + max(0, margin + D(fake)); the generator")
    margin = ours["options"]["properties"]["margin"]
    assert {k: v for k, v in margin.items() if k != "title"} == {
        "default": 1.0,
        "exclusiveMinimum": 0,
        "type": "number",
    }
    assert {(c.kind, c.name) for c in registry().components} < set(by_name)
    for component in found["components"]:
        assert set(component) == {"kind", "name", "plugin", "package", "version", "about", "options"}
        Draft202012Validator.check_schema(component["options"])
    assert {b["plugin"] for b in found["broken"]} == {*BROKEN, "absent", "lost", "wordy", "cyclegan", "twin"}
    fields = {"plugin", "package", "version", "reason", "kind", "name"}
    assert all(set(b) == fields and b["reason"] for b in found["broken"])


@pytest.fixture
def hinged(tiny: Json, tmp_path: Path) -> Path:
    spec: dict[str, Any] = merge(tiny, {"name": "hinged", "losses": {"adversarial": {"type": "hinge", "margin": 0.75}}})
    path = tmp_path / "hinged.json"
    path.write_text(json.dumps(merge(spec, {"schedule": {"steps": 2}, "samples": {"every": 2}})))
    return path


def test_a_third_partys_loss_is_checked(ganlab: Command, hinge: Path, hinged: Path) -> None:
    done = ganlab("check", str(hinged), "--json", paths=[hinge], folder=hinged.parent)
    assert done.code == 0, done.errors
    terms = {(t["player"], t["direction"], t["term"]): t["weight"] for t in json.loads(done.said)["terms"]}
    expected = {
        (player, direction, "adversarial"): 1.0
        for player in ("generator", "discriminator")
        for direction in ("ab", "ba")
    }
    assert terms == expected | {("generator", direction, "cycle"): 10.0 for direction in ("ab", "ba")}
    assert not (hinged.parent / "runs").exists()


def test_a_third_partys_loss_trains_among_broken_plugins(
    ganlab: Command, hinge: Path, hinged: Path, site: Path
) -> None:
    done = ganlab("run", str(hinged), "--json", paths=[site, hinge], folder=hinged.parent)
    assert done.code == 0, done.errors
    result = json.loads(done.said)
    assert (result["step"], result["finished"]) == (2, True)
    run = hinged.parent / "runs" / "hinged"
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [1, 2]
    # new discriminators score near 0, so both terms are near the margin
    for direction in ("ab", "ba"):
        assert records[0][f"loss/discriminator/{direction}/adversarial"] == pytest.approx(1.5, abs=0.5)
    spec = json.loads((run / "spec.json").read_text())
    weight = {"generator": 1.0, "discriminator": 1.0}
    assert spec["losses"]["adversarial"] == {"type": "hinge", "margin": 0.75, "weight": weight}
    environment = json.loads((run / "environment.json").read_text())
    assert ["hinge", "ganlab-hinge", "0.3.1"] in environment["plugins"]
    assert {b["plugin"] for b in environment["broken_plugins"]} >= set(BROKEN)


def test_without_its_package_a_spec_is_refused_and_nothing_is_written(ganlab: Command, hinged: Path) -> None:
    before = sorted(hinged.parent.rglob("*"))
    done = ganlab("run", str(hinged), paths=[], folder=hinged.parent)
    assert done.code == 2
    assert done.said == ""
    (line,) = done.errors.splitlines()
    assert line.startswith(f"ganlab: {hinged}: losses.adversarial: there is no loss 'hinge'")
    assert sorted(hinged.parent.rglob("*")) == before
