"""The spec: merged, extended, set, checked, resolved, hashed, compared, and described by its JSON Schema."""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch
from jsonschema import Draft202012Validator

import ganlab
from ganlab.components.options import schema, signature
from ganlab.components.registry import Component, Registry, installed, registry
from ganlab.errors import SpecError
from ganlab.spec.files import assignment, merge, read
from ganlab.spec.models import Json, Spec, differences
from ganlab.spec.resolve import resolve
from ganlab.spec.schema import json_schema
from ganlab.system.build import build_data, sees
from helpers.systems import SHIPPED, TINY


def resolved(patch: Mapping[str, Any] | None = None, **more: Any) -> Spec:
    return resolve(merge(TINY, patch or {}), **more)


def refusal(call: Callable[[], object]) -> str:
    """Returns the sentence with which a call is refused."""
    with pytest.raises(SpecError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


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


WEIGHED = {"type": "perceptual", "features": {"type": "weighed", "file": "weights"}}


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


# --- resolving


def test_every_default_is_filled_and_no_auto_is_left() -> None:
    nothing = {"device": None, "threads": None, "log_every": None}
    spec = resolved({"runtime": nothing, "data": {"holdout": None}, "schedule": {"steps": None}})
    assert spec.data.holdout == 0.1
    options = {"channels": 3, "limit": 0, "seed": 0, "range": None}
    assert spec.data.a == {"type": "folder", "path": str(Path("a").absolute()), **options}
    assert spec.schedule["steps"] == 1000
    assert spec.losses["adversarial"]["weight"] == {"generator": 1.0, "discriminator": 1.0}
    assert "auto" not in json.dumps(spec.as_json()["runtime"])
    assert spec.runtime.threads == torch.get_num_threads()
    device = spec.runtime.device
    assert (device == "cuda") == torch.cuda.is_available()
    assert (spec.runtime.precision == "tf32") == (device == "cuda")


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="the kernel does not list the processor's features")
@pytest.mark.skipif(not hasattr(torch.cpu, "get_capabilities"), reason="this torch can't tell")
def test_a_cpu_gets_bfloat16_if_it_computes_with_it() -> None:
    """The kernel's list of the processor's features decides independently of torch."""
    features = Path("/proc/cpuinfo").read_text().split()
    expected = "bfloat16" if {"avx512_bf16", "amx_bf16"}.intersection(features) else "float32"
    assert resolved({"runtime": {"device": "cpu", "precision": "auto"}}).runtime.precision == expected
    assert resolved({"runtime": {"device": "cpu", "precision": "float32"}}).runtime.precision == "float32"


def test_nested_components_are_resolved_too() -> None:
    spec = resolved({"discriminators": {"image": {"type": "critic", "of": {"type": "patch", "width": 5}}}})
    inner = {"type": "patch", "width": 5, "layers": 3, "norm": "instance"}
    assert spec.discriminators["image"] == {"type": "critic", "clamp": 0.01, "of": inner}


@pytest.mark.parametrize("nested", [False, True])
def test_a_resolved_spec_resolves_to_itself(nested: bool) -> None:
    critic = {"type": "critic", "of": {"type": "patch"}}
    once = resolved({"discriminators": {"image": critic}, "ema_halflife_images": 500} if nested else {})
    again = resolve(once.as_json())
    assert again == once
    assert again.as_json() == once.as_json()
    assert again.fingerprint() == once.fingerprint()
    assert ganlab.load_spec(once.as_json()) == once


def test_what_an_earlier_run_chose_for_auto_is_kept() -> None:
    before = resolved({"runtime": {"threads": 3, "precision": "float64"}})
    auto = {"threads": "auto", "precision": "auto"}
    assert resolved({"runtime": auto}, like=before) == before
    for precision in ("float32", "bfloat16"):
        before = resolved({"runtime": {"precision": precision}})
        assert resolved({"runtime": auto}, like=before).runtime.precision == precision
    assert resolved({"runtime": {**auto, "threads": 2}}, like=before).runtime.threads == 2


@pytest.mark.parametrize(
    ("weight", "both"),
    [
        (None, (1.0, 1.0)),
        (10, (10.0, 10.0)),
        (0, (0.0, 0.0)),
        ({}, (1.0, 1.0)),
        ({"generator": 0.5}, (0.5, 1.0)),
        ({"discriminator": 0.5}, (1.0, 0.5)),
        ({"generator": 2, "discriminator": 3}, (2.0, 3.0)),
    ],
)
def test_a_weight_is_for_both_players_or_maps_them_to_1_by_default(weight: Any, both: tuple[float, float]) -> None:
    cycle = {"type": "cycle"} if weight is None else {"type": "cycle", "weight": weight}
    found = resolve({**TINY, "losses": {"cycle": cycle}}).weight("cycle")
    assert (found["generator"], found["discriminator"]) == both


def test_a_wrapper_sees_what_the_discriminator_within_sees() -> None:
    inner = {"type": "critic", "of": {"type": "embedding"}}
    wrappers = {"deep": {"type": "critic", "of": inner}, "shallow": {"type": "critic", "of": {"type": "patch"}}}
    components = resolved({"discriminators": wrappers}).components
    assert sees(components["discriminators.deep"]) == "embeddings"
    assert sees(components["discriminators.shallow"]) == "images"


def test_a_resolved_spec_knows_the_class_place_and_options_of_each_component() -> None:
    spec = resolved({"discriminators": {"image": {"type": "critic", "of": {"type": "patch", "width": 5}}}})
    places = ["data.a", "data.b", "generator", "schedule", "discriminators.image", "losses.adversarial", "losses.cycle"]
    assert list(spec.components) == places
    critic, patch = spec.components["discriminators.image"].walk()
    assert (critic.place, critic.title, critic.as_json()) == (
        "discriminators.image",
        "critic(patch)",
        spec.discriminators["image"],
    )
    assert (patch.place, patch.component) == ("discriminators.image.of", registry().find("discriminator", "patch", ""))
    assert patch.options == {"width": 5, "layers": 3, "norm": "instance"}
    assert spec.components["losses.cycle"].as_json() == {"type": "cycle", "norm": "l1"}


def test_a_resolved_evaluation_knows_its_metrics_and_features() -> None:
    plain = resolved().evaluation
    assert (plain.metric_components, plain.features_component) == ((), None)
    spec = resolved({"evaluation": {"metrics": ["kid", {"type": "fid"}], "features": "lite0"}})
    metrics, features = spec.evaluation.metric_components, spec.evaluation.features_component
    assert [(metric.place, metric.component.name) for metric in metrics] == [
        ("evaluation.metrics.0", "kid"),
        ("evaluation.metrics.1", "fid"),
    ]
    assert tuple(metric.as_json() for metric in metrics) == spec.evaluation.metrics
    assert features is not None
    assert (features.place, features.as_json()) == ("evaluation.features", spec.evaluation.features)


def test_a_metric_may_name_its_own_feature_network() -> None:
    """The network's options that change what its vectors mean are part of its name."""
    small = {"type": "lite0", "size": 112}
    metrics = ["kid", {"type": "kid", "features": "stlpips-alex"}, {"type": "kid", "features": small}]
    spec = resolved({"evaluation": {"metrics": metrics, "features": "lite0"}})
    found = spec.evaluation.metric_components
    assert [metric.key for metric in found] == ["kid", "kid-stlpips-alex", "kid-lite0-112"]
    used = [spec.evaluation.features_of(metric) for metric in found]
    assert [features and features.label for features in used] == ["lite0", "stlpips-alex", "lite0-112"]
    assert spec.evaluation.metrics[2] == {"type": "kid", "features": small}
    assert [part.place for part in found[2].walk()] == ["evaluation.metrics.2", "evaluation.metrics.2.features"]
    # what a run keeps resolves to the same
    again = resolved({"evaluation": spec.as_json()["evaluation"]})
    assert [metric.as_json() for metric in again.evaluation.metric_components] == [m.as_json() for m in found]


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        (["kid", {"type": "lpips", "features": "lite0"}], "1.features: is not allowed: 'lpips' compares no feature"),
        ([{"type": "kid", "features": 3}], "0.features: 3 is not allowed: a type, or an object with a type"),
        ([{"type": "kid", "features": "lite1"}], "0.features: there is no features 'lite1'; did you mean 'lite0'"),
        ([{"type": "kid", "features": "lite0"}] * 2, " 'kid-lite0' is named twice"),
    ],
)
def test_a_wrong_feature_network_of_a_metric_is_refused(metrics: list[Any], said: str) -> None:
    with pytest.raises(SpecError, match=rf"evaluation\.metrics[.:]{said}"):
        resolved({"evaluation": {"metrics": metrics, "features": "lite0"}})


def test_a_mapping_that_is_no_json_is_refused() -> None:
    said = refusal(
        lambda: ganlab.load_spec({**TINY, "data": {**TINY["data"], "a": {"type": "folder", "path": Path("a")}}})
    )
    assert said.startswith("spec: is not JSON")
    assert refusal(lambda: ganlab.load_spec({**TINY, "seed": math.nan})).startswith("spec: seed: NaN is not allowed")
    loop: Json = {**TINY}
    loop["about"] = loop
    assert refusal(lambda: ganlab.load_spec(loop)) == "spec: is nested too deeply: at most 100 levels are allowed"
    assert (
        refusal(lambda: ganlab.load_spec({**TINY, "extends": "x"})) == "spec: extends: only a file can extend another"
    )
    assert refusal(lambda: ganlab.load_spec({**TINY, "about": "\ud800"})) == (
        "spec: '\\ud800' is not allowed: it is not UTF-8"
    )


# --- what a spec computes


def leaves(value: Json, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, inner in value.items():
        if isinstance(inner, dict):
            yield from leaves(inner, (*path, key))
        else:
            yield (*path, key)


def changed(value: Any) -> Any:
    """Returns another value, which Spec accepts if Spec itself checks it."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, list):
        return value[::-1]
    if isinstance(value, int | float):
        return value + 1 if isinstance(value, int) else value / 2
    return {None: 2.5, "float32": "float64", "bfloat16": "float32", "cpu": "cuda", "last": "best"}.get(
        value, f"{value}x"
    )


RESOLVED = resolved(
    {
        "discriminators": {"critic": {"type": "critic", "of": {"type": "patch"}}},
        "about": "words",
        "init": {"run": "another"},
        "evaluation": {
            "metrics": ["kid", "fid", {"type": "kid", "features": "stlpips-alex"}],
            "features": "lite0",
            "every": 5,
            "during": ["kid", "fid"],
            "monitor": "fid-lite0",
        },
    }
)
FULL = RESOLVED.as_json()


@pytest.mark.parametrize("path", list(leaves(FULL)), ids=".".join)
def test_the_fingerprint_covers_what_trains(path: tuple[str, ...]) -> None:
    asked = json.loads(json.dumps(FULL))
    place = asked
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = changed(place[path[-1]])
    one, other = (Spec.model_validate_json(json.dumps(spec)) for spec in (FULL, asked))
    for spec in (one, other):
        spec._components = dict(RESOLVED.components)
    nothing = ("name", "about", "runtime.device", "runtime.log_every", "data.a.path", "data.b.path")
    same = ".".join(path) in nothing or path[0] in ("evaluation", "samples", "checkpoints", "callbacks")
    assert one != other
    assert (one.fingerprint() == other.fingerprint()) == same
    found = differences(one, other)
    assert [line.startswith(f"{'.'.join(path)}: ") for line in found] == ([] if same else [True])


def test_random_weights_are_no_part_of_what_trains() -> None:
    """A run of a version without `init` has the same fingerprint."""
    assert "init" not in resolved({}).trains()
    assert resolved({"init": {"checkpoint": "best"}}).fingerprint() == resolved({}).fingerprint()


def test_a_location_nested_anywhere_is_no_part_of_what_trains(trial: None) -> None:
    losses = [{"look": merge(WEIGHED, {"features": {"file": name}})} for name in ("here", "there")]
    one, other = (resolve({**TINY, "losses": each}) for each in losses)
    assert list(one.locations()) == ["data.a.path", "data.b.path", "losses.look.features.file"]
    assert one.losses != other.losses
    assert one.fingerprint() == other.fingerprint()


def test_the_fingerprint_does_not_depend_on_how_the_spec_is_written() -> None:
    backwards = json.loads(json.dumps(TINY), object_pairs_hook=lambda pairs: dict(reversed(pairs)))
    one = resolved()
    assert resolve(backwards).fingerprint() == one.fingerprint()
    assert resolved({"losses": {"cycle": {"weight": 10.0}}}).fingerprint() == one.fingerprint()
    assert resolved({"losses": {"cycle": {"weight": {"generator": 10, "discriminator": 10}}}}) == one
    assert resolved({"schedule": {"decay_from": 1}, "data": {"flip": True}}).fingerprint() == one.fingerprint()


def test_differences_name_paths_and_both_values() -> None:
    one = resolved({"name": "one"})
    other = resolved({"name": "other", "seed": 4, "losses": {"cycle": None, "id": {"type": "identity"}}})
    assert differences(one, one) == []
    assert differences(one, other) == [
        'losses.cycle.norm: "l1" / absent',
        'losses.cycle.type: "cycle" / absent',
        "losses.cycle.weight.discriminator: 10.0 / absent",
        "losses.cycle.weight.generator: 10.0 / absent",
        'losses.id.type: absent / "identity"',
        "losses.id.weight.discriminator: absent / 1.0",
        "losses.id.weight.generator: absent / 1.0",
        "seed: 0 / 4",
    ]


@pytest.mark.parametrize(
    ("path", "there"),
    [
        ("discriminators.image.clamp", "discriminators.image.of.clamp"),
        ("discriminators.image.width", "discriminators.image.of.of.width"),
        ("discriminators.image.of.width", "discriminators.image.of.of.width"),
        ("discriminators.image.of.std", ""),
        ("discriminators.image.heads", ""),
        ("generator.steps", ""),
    ],
)
def test_an_unknown_key_that_a_nested_component_has_is_said_to_be_there(path: str, there: str) -> None:
    noisy = {"type": "instance_noise", "of": {"type": "critic", "of": {"type": "patch"}}}
    asked = merge(merge(TINY, {"discriminators": {"image": noisy}}), assignment(f"{path}=3"))
    said = refusal(lambda: resolve(asked, "a: file.json"))
    assert said.startswith(f"a: file.json: {path}: unknown key;")
    assert re.findall("; there is ([^ ]+)", said) == ([there] if there else [])


def test_a_nested_component_that_is_not_there_has_no_keys() -> None:
    for of in ({"type": "ptch"}, {"width": 3}, {"type": ["patch"]}, "patch", None):
        wrong = {"type": "critic", "of": of, "width": 3}
        said = refusal(lambda wrong=wrong: resolve({**TINY, "discriminators": {"image": wrong}}))
        assert said.startswith("spec: discriminators.image.width: unknown key;")
        assert "there is" not in said


# --- the JSON Schema


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


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    found = json_schema(registry().components)
    Draft202012Validator.check_schema(found)
    return Draft202012Validator(found)


def test_the_schema_says_which_draft_it_is(validator: Draft202012Validator) -> None:
    assert validator.schema["$schema"] == Draft202012Validator.META_SCHEMA["$id"]


def test_the_schema_describes_every_key_of_a_spec(validator: Draft202012Validator) -> None:
    models = {"spec": validator.schema, **{k: v for k, v in validator.schema["$defs"].items() if "properties" in v}}
    for model in ("spec", "Data", "Samples", "Checkpoints", "Evaluation", "Runtime", "Weight"):
        lacking = [key for key, place in models[model]["properties"].items() if not place.get("description")]
        assert not lacking, model


def test_the_schema_describes_every_component_and_option(validator: Draft202012Validator) -> None:
    """A description stands beside the key or the name, because editors read it there."""
    for kind in {component.kind for component in registry().components}:
        types, *rest = validator.schema["$defs"][kind]["allOf"]
        types = types["properties"]["type"]
        abouts = {c.name: c.as_dict()["about"] for c in registry().components if c.kind == kind}
        assert dict(zip(types["enum"], types["enumDescriptions"], strict=True)) == abouts
        for condition in rest:
            component = condition.get("then", condition.get("else"))
            for option, place in component["properties"].items():
                assert option == "type" or place["description"], f"{component['title']}: {option}"


def test_an_option_without_its_type_is_described_for_each_component_that_has_it(
    validator: Draft202012Validator,
) -> None:
    *components, change = validator.schema["$defs"]["schedule"]["allOf"][1:]
    expected = {c["if"]["properties"]["type"]["const"]: c["then"]["properties"] for c in components}
    lines = [line.split(": ", 1) for line in change["else"]["properties"]["steps"]["description"].split("\n")]
    found = {name: text for names, text in lines for name in names.split(", ")}
    assert len(lines) > 1
    assert found == {name: options["steps"]["description"] for name, options in expected.items() if "steps" in options}
    # an option of every component is described without the components' names
    weight = validator.schema["$defs"]["loss"]["allOf"][-1]["else"]["properties"]["weight"]
    assert weight["description"].startswith("The factor")


@pytest.mark.parametrize(
    ("patch", "said"),
    [
        ({"generator": {"type": "resnt"}}, "'resnt' is not one of ['"),
        ({"generator": {"widht": 3}}, "Additional properties are not allowed ('widht' was unexpected)"),
        ({"generator": {"width": "3"}}, "'3' is not of type 'integer'"),
        ({"generator": "resnet"}, "'resnet' is not of type 'object', 'null'"),
        ({"schedule": {"steps": 0}}, "0 is less than the minimum of 1"),
        ({"discriminators": {"d": {"type": "critic", "of": {"type": "ptch"}}}}, "'ptch' is not one of ['"),
        ({"data": {"size": 3}}, "3 is less than the minimum of 4"),
    ],
)
def test_the_schema_says_what_is_wrong_and_nothing_else(
    validator: Draft202012Validator, patch: Json, said: str
) -> None:
    (error,) = validator.iter_errors(merge(TINY, patch))
    assert error.message.startswith(said)


@pytest.mark.parametrize(
    "spec",
    [
        TINY,
        FULL,
        {},
        {"$schema": "./.schema.json", "generator": None},
        {"extends": "x.json", "losses": {"cycle": {"weight": 10}, "identity": None}},
        {"extends": "x.json", "losses": {"cycle": {"weight": {"discriminator": 0.5}}}, "discriminators": None},
        {"extends": "x.json", "data": {"size": 32, "a": {"path": "there"}}, "ema_halflife_images": None},
        {"extends": "x.json", "discriminators": {"image": {"of": {"width": 3}}}},
    ],
)
def test_the_schema_accepts_specs_and_what_holds_only_differences(validator: Draft202012Validator, spec: Json) -> None:
    validator.validate(spec)


@pytest.mark.parametrize(
    "patch",
    [
        {"dta": {}},
        {"data": {"sise": 3}},
        {"data": {"size": "16"}},
        {"data": {"size": 3}},
        {"data": {"a": {"pth": "x"}}},
        {"data": {"a": {"path": ""}}},
        {"data": {"a": {"path": 3}}},
        {"generator": {"type": "resnt"}},
        {"generator": {"widht": 3}},
        {"generator": "resnet"},
        {"discriminators": {"image": {"type": "critic", "of": {"type": "ptch"}}}},
        {"discriminators": {"image": {"type": "critic", "of": {"type": "patch", "widht": 1}}}},
        {"losses": {"cycle": {"weight": -1}}},
        {"losses": {"cycle": {"weight": {"generators": 1}}}},
        {"losses": {"cycle": {"nrom": "l1"}}},
        {"losses": {"a cycle": {"type": "cycle"}}},
        {"generator": {"weight": 1}},
        {"losses": {"gan": {"type": "acgan_source", "of": {"type": "lsgan", "weight": 1}}}},
        {"schedule": {"steps": 0}},
        {"runtime": {"device": "gpu"}},
        {"directions": ["ac"]},
        {"directions": []},
        {"extends": 3},
        {"$schema": 3},
    ],
)
def test_the_schema_refuses_what_the_spec_refuses(validator: Draft202012Validator, patch: Json) -> None:
    asked = merge(TINY, patch)
    assert not validator.is_valid(asked)
    refusal(lambda: resolve(asked))


def test_a_change_to_a_nested_loss_has_no_weight_either(validator: Draft202012Validator) -> None:
    assert validator.is_valid({"losses": {"gan": {"of": {"type": "lsgan"}}}})
    assert not validator.is_valid({"losses": {"gan": {"of": {"weight": 1}}}})


@pytest.mark.parametrize("key", ["weight", "weihgt"])
def test_no_weight_is_offered_to_a_nested_loss(key: str) -> None:
    nested = {"type": "acgan_source", "of": {"type": "lsgan", key: 1}}
    said = refusal(lambda: resolved({"losses": {"gan": nested}}))
    assert said.startswith(f"spec: losses.gan.of.{key}: unknown key; known are: type (loss 'lsgan' of ")
    said = refusal(lambda: resolved({"losses": {"gan": {"type": "lsgan", "weihgt": 1}}}))
    assert "unknown key; did you mean 'weight'? known are: type, weight (" in said


@pytest.mark.parametrize("found", registry().components, ids=lambda found: f"{found.kind}-{found.name}")
def test_the_schema_allows_null_beside_a_type_where_a_file_does(
    validator: Draft202012Validator, found: Component
) -> None:
    simple = {"generator": "resnet", "discriminator": "patch", "loss": "lsgan", "schedule": "simultaneous"}
    simple["features"] = "lite0"
    sign = signature(found.cls)
    least: Json = {"type": found.name} | {option: {"type": simple[kind]} for option, kind in sign.nested.items()}
    known = {option: place.get("enum", ["x"])[0] for option, place in schema(found.cls)["properties"].items()}
    least |= {option: known[option] for option, field in sign.model.model_fields.items() if field.is_required()}
    for option in (*sign.model.model_fields, *sign.nested):
        options: Any = least | {option: None}
        place: Json = {
            "generator": {"generator": options},
            "schedule": {"schedule": options},
            "source": {"data": {"a": options}},
            "discriminator": {"discriminators": {"x": options}},
            "loss": {"losses": {"x": options}},
            "features": {"evaluation": {"features": options}},
            "metric": {"evaluation": {"metrics": [options]}},
            "callback": {"callbacks": {"x": options}},
        }[found.kind]
        try:
            resolve(merge(TINY, place))
            allowed = True
        except SpecError:
            allowed = False
        assert validator.is_valid(place) == allowed, option


def test_the_schema_has_every_component_and_what_their_options_define(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "ganlab_moody.py").write_text(
        "import enum\nimport ganlab\nfrom typing import Literal\n"
        "class Mood(enum.Enum):\n    GLAD = 'glad'\n    SAD = 'sad'\n"
        "class Moody(ganlab.Loss):\n"
        "    def __init__(self, mood: Mood = Mood.GLAD, only: Literal['one'] = 'one'):\n        super().__init__()\n"
        "@ganlab.hookimpl\n"
        "def ganlab_losses():\n    return {'moody': Moody, 'moodier': Moody}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with_it = Registry([*installed(), EntryPoint("moody", "ganlab_moody", "ganlab")])
    assert with_it.broken == registry().broken
    found = json_schema(with_it.components)
    Draft202012Validator.check_schema(found)
    for component in with_it.components:
        titles = [part["then"]["title"] for part in found["$defs"][component.kind]["allOf"] if "then" in part]
        assert f"{component.kind} {component.name}" in titles
    checks = Draft202012Validator(found)
    checks.validate(merge(TINY, {"losses": {"m": {"type": "moody", "mood": "sad", "weight": 2}}}))
    checks.validate({"losses": {"m": {"type": "moody", "mood": None, "only": None}}})
    assert not checks.is_valid(merge(TINY, {"losses": {"m": {"type": "moody", "only": "two"}}}))
    assert not checks.is_valid(merge(TINY, {"losses": {"m": {"type": "moodier", "mood": "angry"}}}))
