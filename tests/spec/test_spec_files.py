"""Spec files: merged, extended, set, and refused where they are no specs."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import ganlab
from ganlab.components.options import schema
from ganlab.errors import SpecError
from ganlab.spec.files import assignment, merge, read
from ganlab.spec.models import Json, Spec
from ganlab.spec.resolve import resolve
from ganlab.system.build import build_data
from helpers.specs import WEIGHED, refusal, resolved
from helpers.systems import SHIPPED, TINY

# --- merging


@pytest.mark.parametrize(
    ("original", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merging_is_that_of_rfc_7396_appendix_a(original: Any, patch: Any, result: Any) -> None:
    before = json.dumps([original, patch])
    assert merge(original, patch) == result
    assert json.dumps([original, patch]) == before


@pytest.mark.parametrize(
    ("original", "patch", "result"),
    [
        ({"type": "x", "p": 1}, {"type": "y"}, {"type": "y"}),
        ({"type": "x", "p": 1, "weight": 2}, {"type": "y", "q": 3}, {"type": "y", "q": 3, "weight": 2}),
        ({"type": "x", "p": 1, "weight": 2}, {"type": "y", "weight": None}, {"type": "y"}),
        (
            {"type": "x", "weight": {"g": 1}},
            {"type": "y", "weight": {"d": 2}},
            {"type": "y", "weight": {"g": 1, "d": 2}},
        ),
        ({"type": "x", "p": 1}, {"type": "x", "q": 2}, {"type": "x", "p": 1, "q": 2}),
        ({"p": 1}, {"type": "x"}, {"type": "x", "p": 1}),
        ({"l": {"type": "x", "p": 1}}, {"l": {"type": "y"}}, {"l": {"type": "y"}}),
        (
            {"type": "x", "of": {"type": "u", "p": 1}},
            {"of": {"type": "v"}},
            {"type": "x", "of": {"type": "v"}},
        ),
    ],
)
def test_another_type_replaces_the_object_and_keeps_its_weight(original: Any, patch: Any, result: Any) -> None:
    assert merge(original, patch) == result


# --- files


@pytest.fixture
def save(tmp_path: Path) -> Callable[[str, Any], Path]:
    """`save(name, spec)` writes a file. The spec is a JSON value or a text."""

    def write(name: str, content: Any) -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    return write


Save = Callable[[str, Any], Path]


def test_a_chain_of_specs_is_merged_from_the_base_on(save: Save) -> None:
    save("base.json", {**TINY, "seed": 1, "about": "base"})
    save("middle.json", {"extends": "base.json", "losses": {"cycle": {"weight": 3}}, "seed": 2})
    save("deep/other.json", {"extends": "../middle.json", "losses": {"cycle": None, "id": {"type": "identity"}}})
    top = save("top.json", {"extends": "deep/other.json", "schedule": {"type": "alternating", "steps": 7}})
    found = read(top)
    sources = {domain: {"type": "folder", "path": str(top.parent / domain)} for domain in "ab"}
    losses = {"adversarial": {"type": "lsgan"}, "id": {"type": "identity"}}
    expected = {**TINY, "name": "top", "seed": 2, "losses": losses, "data": {**TINY["data"], **sources}}
    assert found == {**expected, "schedule": {"type": "alternating", "steps": 7}}


def test_the_name_is_the_files_by_default_and_is_not_inherited(save: Save) -> None:
    nameless = {k: v for k, v in TINY.items() if k != "name"}
    save("base.json", {**nameless, "name": "chosen", "about": "the base's words"})
    child = read(save("child.json", {"extends": "base.json"}))
    assert read(save("plain.json", nameless))["name"] == "plain"
    assert child["name"] == "child"
    assert "about" not in child
    assert read(save("own.json", {"extends": "base.json", "name": "mine"}))["name"] == "mine"
    assert "extends" not in child


def test_an_absolute_path_can_be_extended(save: Save) -> None:
    base = save("base.json", TINY)
    child = save("elsewhere/child.json", {"extends": str(base)})
    assert read(child) == {**read(base), "name": "child"}


def test_a_byte_order_mark_is_no_error(save: Save) -> None:
    assert read(save("bom.json", "\ufeff" + json.dumps(TINY))) == read(save("plain.json", TINY))


def test_a_relative_path_starts_at_the_file_that_gives_it(
    trial: None, save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # neither the other's path nor its type is in one file with it
    untyped = {"a": {"path": "faces"}, "b": {"type": "folder", "path": "x"}}
    evaluation = {"metrics": ["kid"], "features": {"type": "inception", "path": "weights"}}
    save(
        "one/base.json",
        {**TINY, "data": {**TINY["data"], **untyped}, "losses": {"look": WEIGHED}, "evaluation": evaluation},
    )
    there = {"a": {"type": "folder"}, "b": {"path": "comics"}}
    top = save("two/top.json", {"extends": "../one/base.json", "data": there})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    # the file may be named from any folder
    for path in (top, Path("two/top.json")):
        spec = ganlab.load_spec(path)
        one = tmp_path / "one"
        assert spec.data.a["path"] == str(one / "faces")
        assert spec.data.b["path"] == str(tmp_path / "two/comics")
        assert spec.losses["look"]["features"]["file"] == str(one / "weights")
        assert spec.evaluation.features == {"type": "inception", "path": str(one / "weights")}
        assert resolve(spec.as_json()) == spec
    for value, found in (("new", tmp_path / "new"), ("~/new", "/home/me/new"), ("/new", "/new"), (".", tmp_path)):
        assert ganlab.load_spec(top, [f"data.b.path={value}"]).data.b["path"] == str(found)
        assert ganlab.load_spec(TINY, [f"data.b.path={value}"]).data.b["path"] == str(found)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("", '"" is not allowed: it should be the path of a file or a folder'),
        (2024, "2024 is not allowed: it should be a string"),
        (True, "true is not allowed: it should be a string"),
    ],
)
def test_what_is_no_path_is_refused(save: Save, value: Any, said: str) -> None:
    spec = merge(TINY, {"data": {"a": {"path": value}}})
    for form in (spec, save("spec.json", spec)):
        assert f"data.a.path: {said}" in refusal(lambda form=form: ganlab.load_spec(form))  # type: ignore[misc]


def test_a_path_that_json_cannot_hold_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"\xff")
    folder.mkdir()
    (folder / "spec.json").write_text(json.dumps(TINY))
    assert "a name that is not UTF-8 can't be kept" in refusal(lambda: read(folder / "spec.json"))


def test_a_home_folder_that_does_not_exist_is_one_sentence() -> None:
    spec = ganlab.load_spec(merge(TINY, {"data": {"a": {"path": "~nosuchuser/x"}}}))
    assert "'~nosuchuser/x': the home folder that its '~' stands for is not known" in refusal(lambda: build_data(spec))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not JSON: line 1, column 1"),
        ('{\n  "seed": 1,\n}', "is not JSON: line 3, column 1"),
        ('{"seed": 1,\n "about": \'x\'}', "is not JSON: line 2, column 11"),
        ("[1]", "is JSON, but not an object"),
        ("null", "is JSON, but not an object"),
        ('{"seed": 1, "data": {}, "seed": 2}', "the key 'seed' appears twice in one object"),
        ('{"data": {"a": {"type": "x", "type": "x"}}}', "the key 'type' appears twice in one object"),
        ('{"seed": NaN}', "NaN is not allowed: numbers are finite"),
        ('{"seed": -Infinity}', "-Infinity is not allowed: numbers are finite"),
        ('{"data": {"holdout": 1e999}}', "1e999 is not allowed: numbers are finite"),
        ('{"data": {"holdout": -1e999}}', "-1e999 is not allowed: numbers are finite"),
        ('{"seed": ' + "1" * 5000 + "}", "is not allowed: Exceeds the limit (4300 digits)"),
        ("[" * 100_000, "is nested too deeply"),
        ('{"extends": 3}', "extends: 3 is not allowed: it is the path of another spec"),
        ('{"extends": ["a.json"]}', 'extends: ["a.json"] is not allowed'),
    ],
)
def test_a_file_that_is_no_spec_is_refused(save: Save, text: str, said: str) -> None:
    path = save("wrong.json", text)
    assert refusal(lambda: read(path)).startswith(f"{path}: {said}")


def test_a_file_that_cannot_be_read_is_refused(save: Save, tmp_path: Path) -> None:
    missing = tmp_path / "missing.json"
    assert refusal(lambda: read(missing)) == f"{missing}: can't be read: No such file or directory"
    assert refusal(lambda: read(tmp_path)).startswith(f"{tmp_path}: is a folder without a run; a spec is")
    child = save("child.json", {"extends": "missing.json"})
    said = f"{missing}: can't be read: No such file or directory (child.json extends it)"
    assert refusal(lambda: read(child)) == said
    nul = save("nul.json", {"extends": "a\0b"})
    assert "can't be read" in refusal(lambda: read(nul))
    (tmp_path / "utf16.json").write_bytes('{"seed": 1}'.encode("utf-16"))
    assert refusal(lambda: read(tmp_path / "utf16.json")).endswith("can't be read: it is not UTF-8 text")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
@pytest.mark.parametrize("name", ["pipe.json", "endless.json"])
def test_a_spec_that_is_no_file_is_refused_and_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "endless.json").symlink_to("/dev/zero")
    (tmp_path / "child.json").write_text(json.dumps({"extends": name}))
    with pytest.raises(SpecError, match=rf"{name}: can't be read: it is not a regular file$"):
        read(tmp_path / name)
    with pytest.raises(SpecError, match=rf"{name}: can't be read: it is not a regular file \(child.json extends it\)"):
        read(tmp_path / "child.json")


def test_specs_that_extend_one_another_are_refused_and_named(save: Save) -> None:
    alone = save("alone.json", {"extends": "alone.json"})
    assert refusal(lambda: read(alone)).endswith("alone.json: extends itself: alone.json -> alone.json")
    one = save("one.json", {"extends": "sub/two.json"})
    save("sub/two.json", {"extends": "../three.json"})
    save("three.json", {"extends": "sub/../one.json"})
    said = "extends itself: one.json -> two.json -> three.json -> one.json"
    assert refusal(lambda: read(one)).endswith(said)


# --- settings


@pytest.mark.parametrize(
    ("text", "patch"),
    [
        ("seed=3", {"seed": 3}),
        ("losses.cycle.weight=0.5", {"losses": {"cycle": {"weight": 0.5}}}),
        ("losses.cycle=null", {"losses": {"cycle": None}}),
        ("data.flip=false", {"data": {"flip": False}}),
        ("generator.type=resnet", {"generator": {"type": "resnet"}}),
        ('generator={"type": "resnet"}', {"generator": {"type": "resnet"}}),
        ('directions=["ab"]', {"directions": ["ab"]}),
        ("about=a=b", {"about": "a=b"}),
        ("about=", {"about": ""}),
        ('about="3"', {"about": "3"}),
        ("about=NaN", {"about": "NaN"}),
        ("about=" + "1" * 5000, {"about": "1" * 5000}),
        ("data.size = 8", {"data": {"size": 8}}),
    ],
)
def test_an_assignment_is_a_patch_whose_value_is_json_or_a_string(text: str, patch: Json) -> None:
    assert assignment(text) == patch


@pytest.mark.parametrize("text", ["", "=", "=3", "seed", "data..size=3", ".seed=3", "data.=3", " =3"])
def test_an_assignment_of_another_form_is_refused(text: str) -> None:
    assert refusal(lambda: assignment(text)) == f"--set {text}: is not of the form path.to.key=value"


def test_assignments_are_merged_one_after_another() -> None:
    asked = ["seed=1", "losses.cycle.weight=2", "seed=3", "losses.adversarial.type=noisy_lsgan"]
    spec = ganlab.load_spec(TINY, asked)
    assert spec.seed == 3
    assert spec.losses["cycle"]["weight"] == {"generator": 2.0, "discriminator": 2.0}
    assert spec.losses["adversarial"]["type"] == "noisy_lsgan"


# --- hostile ones


def deep(levels: int) -> Any:
    value: Any = 1
    for level in range(levels):
        value = {"a": value} if level % 2 else [value]
    return value


@pytest.mark.parametrize("levels", [101, 3000])
def test_a_spec_that_is_nested_too_deeply_is_refused(save: Save, levels: int) -> None:
    said = "is nested too deeply: at most 100 levels are allowed"
    path = ".".join(["a"] * levels)
    assert refusal(lambda: ganlab.load_spec(TINY, [f"{path}=1"])) == f"--set {path[:77]}...: {said}"
    assert refusal(lambda: ganlab.load_spec({**TINY, "about": deep(levels)})) == f"spec: {said}"
    file = save("deep.json", '{"about": ' + "[" * levels + "]" * levels + "}")
    assert said.split(":")[0] in refusal(lambda: ganlab.load_spec(file))
    wrapped = TINY["generator"]
    for _ in range(levels):
        wrapped = {"type": "dropout", "of": wrapped}
    assert refusal(lambda: ganlab.load_spec({**TINY, "generator": wrapped})) == f"spec: {said}"


def test_wrappers_may_be_nested() -> None:
    wrapped = TINY["generator"]
    for _ in range(50):
        wrapped = {"type": "dropout", "of": wrapped}
    assert len(list(ganlab.load_spec({**TINY, "generator": wrapped}).components["generator"].walk())) == 51


def test_a_spec_of_many_keys_is_read_in_linear_time(save: Save) -> None:
    file = save("keys.json", json.dumps({f"k{number}": 1 for number in range(20_000)}))
    started = time.process_time()
    assert "is required" in refusal(lambda: ganlab.load_spec(file))
    # code that compares each key with all others takes four seconds and more
    assert time.process_time() - started < 2


@pytest.mark.parametrize("value", ["2024", "null", "true", "[1]", "1e3"])
def test_a_setting_that_json_reads_otherwise_gets_a_hint(value: str) -> None:
    said = refusal(lambda: ganlab.load_spec(TINY, [f"data.a.path={value}"]))
    assert said.endswith(f"""; --set reads {value} as JSON: the string is --set 'data.a.path="{value}"', and a file\
 or folder of that name is also ./{value}""")
    for meant in (f'"{value}"', f"./{value}"):
        path = ganlab.load_spec(TINY, [f"data.a.path={meant}"]).data.a["path"]
        assert path == str(Path(meant.strip('"')).absolute())
    assert "as JSON" not in refusal(lambda: ganlab.load_spec(TINY, ["data.size=wide", "seed=3"]))


@pytest.mark.parametrize("path", ["about", "data.a.path", "generator.type", "generator.\udcff"])
def test_text_that_is_not_utf_8_is_refused(path: str) -> None:
    assert refusal(lambda: ganlab.load_spec(TINY, [f"{path}=a\udcff"])).endswith("is not allowed: it is not UTF-8")


def test_every_whole_number_of_a_spec_and_of_the_shipped_components_has_bounds() -> None:
    def unbounded(place: Any, path: str) -> Iterator[str]:
        if isinstance(place, list):
            for inner in place:
                yield from unbounded(inner, path)
        if isinstance(place, dict):
            whole = "integer" in place.get("type", ()) and not place.keys() & {"enum", "const"}
            upper, lower = {"maximum", "exclusiveMaximum"}, {"minimum", "exclusiveMinimum"}
            if whole and not (place.keys() & upper and place.keys() & lower):
                yield path
            for key, inner in place.items():
                yield from unbounded(inner, f"{path}.{key}")

    assert len(SHIPPED) > 40
    assert [path for c in SHIPPED for path in unbounded(schema(c.cls), c.name)] == []

    assert list(unbounded(Spec.model_json_schema(), "spec")) == []


@pytest.mark.parametrize(
    ("patch", "place"),
    [
        ({"generator": {"blocks": 10**9}}, "generator.blocks"),
        ({"generator": {"width": 10**9}}, "generator.width"),
        ({"data": {"a": {"type": "avatars", "style": "big-ears", "count": 10**9}}}, "data.a.count"),
        ({"schedule": {"pool": 10**9}}, "schedule.pool"),
        ({"samples": {"count": 10**9}}, "samples.count"),
        ({"losses": {f"l{number}": {"type": "lsgan"} for number in range(101)}}, "losses"),
        ({"discriminators": {f"d{number}": {"type": "patch"} for number in range(101)}}, "discriminators"),
        ({"evaluation": {"metrics": ["kid"] * 101}}, "evaluation.metrics"),
    ],
)
def test_what_would_take_all_memory_is_refused(patch: Json, place: str) -> None:
    assert re.match(rf"spec: {place}: .* is not allowed: it should ", refusal(lambda: resolved(patch)))


def test_a_note_on_the_schema_is_no_part_of_a_spec(save: Save) -> None:
    tiny = merge(TINY, {"data": {"a": {"path": "/a"}, "b": {"path": "/b"}}})
    plain = save("spec.json", tiny)
    bare = ganlab.load_spec(plain)
    noted = save("noted/spec.json", {"$schema": "./.schema.json", **tiny})
    child = save("child/spec.json", {"extends": "../noted/spec.json", "name": TINY["name"]})
    for spec in (noted, child, {"$schema": "./.schema.json", **tiny}):
        loaded = ganlab.load_spec(spec)
        assert loaded == bare
        assert loaded.fingerprint() == bare.fingerprint()
    assert "$schema" not in read(child)


def test_a_note_on_the_schema_is_a_string() -> None:
    said = refusal(lambda: ganlab.load_spec({**TINY, "$schema": 3}))
    assert said == "spec: $schema: 3 is not allowed: it is the path of a JSON Schema"
