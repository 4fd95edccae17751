"""The core names no concrete component, neither in code nor in comments and docstrings."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import ganlab
from ganlab.components.registry import HOOKS, registry

CORE = Path(ganlab.__file__).parent
SHIPPED = [component for component in registry().components if component.package == "ganlab"]
NAMES = {component.name for component in SHIPPED}
PACKAGES = {component.cls.__module__.split(".")[0] for component in SHIPPED} - {"ganlab", *HOOKS.values()}

WORDS = {
    *("content", "critic", "cycle", "digits", "dropout", "edges", "embedding", "folder", "identity", "interpolation"),
    *("patch", "perceptual"),
}
"""Component names that are also English words or words of the interfaces. They are allowed in prose and as variables;
only a string that consists of the name alone counts as the component."""

ALLOWED = {
    "cli/commands.py": {
        # flags of `ganlab eval`, short for --metric NAME
        *("fid", "kid", "lpips", "prdc", "content"),
        # a key in the output of --json
        "folder",
        # the command that shows the curves
        "tensorboard",
    },
    # a key of comparison.json
    "comparison/record.py": {"folder"},
    # a key of search.json
    "comparison/search.py": {"folder"},
    # the identity baseline is one of the references
    "comparison/search_tables.py": {"identity"},
    "cli/comparison.py": {"folder"},
    "cli/using.py": {"folder"},
    # keys of --json
    "cli/data.py": {"folder"},
    "cli/sharing.py": {"folder"},
    # a key of what `export` returns
    "sharing/export.py": {"folder"},
    # a reference of evaluation.json
    "sharing/card.py": {"identity"},
    # the network of the checkpoints that it imports, and parts of the spec that it lends them
    "sharing/import_cyclegan.py": {"resnet", "folder", "cycle", "identity"},
    # a key of what `translate` returns
    "inference/files.py": {"folder"},
    "report/run_page.py": {"folder"},
    # the identity baseline
    "report/results.py": {"identity"},
    # the source of folders that are laid out as data sets are
    "spec/layouts.py": {"folder"},
    # the source of a spec for two folders
    "data/starter.py": {"folder"},
    # a key of --json
    "runs/overview.py": {"folder"},
    # the only component in the core
    "data/folder.py": {"folder"},
    # the packages of LPIPS's authors, whose rule this follows, and of its trunk
    "evaluation/lpips.py": {"lpips", "torchvision"},
    # keys of evaluation.json; the identity baseline is one of the references
    "evaluation/image_folders.py": {"folder", "identity"},
    "evaluation/evaluator.py": {"identity"},
    "evaluation/run_evaluator.py": {"identity"},
    "cli/tables.py": {"identity"},
    # a package that the core uses
    "runs/environment.py": {"torchvision"},
    # torch's module; its hooks are stateful
    "torch_utils.py": {"spectral_norm"},
    # the name of the Domain that discriminators of embeddings are given, in these four
    "system/build.py": {"embedding"},
    "testing/losses.py": {"embedding"},
    "testing/simple.py": {"embedding"},
    "testing/system.py": {"embedding"},
    # values of a Translation
    "interfaces/losses.py": {"identity"},
    "system/forward_cache.py": {"identity"},
}
"""{file: names that it may contain}, each with the reason."""


def named(text: str) -> list[tuple[int, str]]:
    """Returns (line, name of a component or of a plugin's package) for each name in a source text.

    The names in WORDS count only if a string consists of the name alone.
    """
    lines = enumerate(text.splitlines(), 1)
    # `-fid` is part of another name, and `--fid` a flag
    words = [(number, word) for number, line in lines for word in re.findall(r"(?<![\w-])\w+", line)]
    strings = [(node.lineno, node.value) for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant)]
    found = [pair for pair in words if pair[1] in (NAMES | PACKAGES) - WORDS]
    return sorted({*found, *(pair for pair in strings if pair[1] in NAMES)})


FILES = {path.relative_to(CORE).as_posix(): path for path in sorted(CORE.rglob("*.py"))}


def test_the_core_names_no_concrete_component() -> None:
    assert len(NAMES) > 40
    assert len(PACKAGES) > 15
    strange = [
        f"{file}:{line} names {word}"
        for file, path in FILES.items()
        for line, word in named(path.read_text())
        if word not in ALLOWED.get(file, ())
    ]
    assert strange == []


def test_nothing_is_allowed_that_isnt_there() -> None:
    used = {name: {word for _, word in named(FILES[name].read_text())} for name in ALLOWED}
    assert used == ALLOWED
    assert WORDS <= NAMES


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ('if loss.type == "lsgan": pass', "lsgan"),
        ("x = {'losses': ['cycle']}", "cycle"),
        ("# as lsgan does", "lsgan"),
        ("def f():\n    '''As wgan, that is.'''", "wgan"),
        ("x = f'{1} of wgan'", "wgan"),
        ("from ganlab_xgan import XGAN", "ganlab_xgan"),
        ("xgan = 1", "xgan"),
        ("number = 'fid-lite0'", "fid"),
    ],
)
def test_a_name_is_found(line: str, name: str) -> None:
    assert [word for _, word in named(line)] == [name]


@pytest.mark.parametrize("line", ["folder = 1  # the folder", "x = 'by clean-fid'", "x = '--kid'", "lsgans = 1"])
def test_another_word_is_not(line: str) -> None:
    assert named(line) == []
