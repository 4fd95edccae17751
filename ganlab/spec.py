"""The spec: a JSON file that names components, read, merged, checked and resolved."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from ganlab.errors import SpecError
from ganlab.interfaces import Discriminator
from ganlab.options import STRICT, sentence, signature, validate
from ganlab.registry import Registry

Json = dict[str, Any]
Options = dict[str, Any]
"""A component in a spec: its `type` and its options."""


def _plain_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", name) or ".." in name:
        raise ValueError(f"{name!r} is not allowed: it names a folder, so at most 100 letters, digits, '.', '_', '-'")
    return name


def _distinct(ways: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(ways)) != len(ways):
        raise ValueError(f"{list(ways)} is not allowed: a way is named once")
    return ways


def _device_name(device: str) -> str:
    if not re.fullmatch(_DEVICE, device):
        raise ValueError(f"{device!r} is not allowed: it should be 'auto', 'cpu', 'mps', 'cuda' or 'cuda:NUMBER'")
    return device


_DEVICE = r"auto|cpu|mps|cuda(:[0-9]{1,3})?"

Positive = Annotated[int, Field(ge=1)]

DESCRIBED = ConfigDict(**STRICT, use_attribute_docstrings=True)
"""The string under a field is its description in the JSON Schema."""


class Data(BaseModel):
    model_config = DESCRIBED
    a: Options
    """The source of domain a."""
    b: Options
    """The source of domain b."""
    size: Annotated[int, Field(ge=4, le=4096)] = 64
    """Height and width of the images in pixels."""
    batch: Annotated[int, Field(ge=1, le=65536)] = 8
    """Images of each domain in a batch."""
    flip: bool = True
    """Mirror images left to right at random."""
    holdout: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Part of each domain's images kept from training."""

    def source(self, domain: str) -> Options:
        return self.a if domain == "a" else self.b


class Weight(BaseModel):
    model_config = DESCRIBED
    generator: Annotated[float, Field(ge=0)] = 1.0
    """The factor on the generators' term; a term of weight 0 is not computed."""
    discriminator: Annotated[float, Field(ge=0)] = 1.0
    """The factor on the discriminators' term; a term of weight 0 is not computed."""


class Samples(BaseModel):
    model_config = DESCRIBED
    every: Positive = 500
    """Steps from one sample grid to the next."""
    count: Positive = 16
    """Held-out images of each way in a grid."""


class Checkpoints(BaseModel):
    model_config = DESCRIBED
    every: Positive = 500
    """Steps from one checkpoint to the next."""
    keep: Positive = 2
    """How many of the newest are kept."""


class Evaluation(BaseModel):
    model_config = DESCRIBED
    metrics: tuple[str | Options, ...] = ()
    """What is measured, in this order: types, or objects with a type and its options."""
    features: str | Options | None = None
    """The network whose vectors metrics compare: a type, or an object with a type and its options."""
    every: Positive | None = None
    """Also measure after every so many steps of training, and keep the best checkpoint."""
    choose: str | None = None
    """The number whose mean over the ways chooses the best checkpoint; by default the first measured."""


class Runtime(BaseModel):
    model_config = DESCRIBED
    device: Annotated[str, AfterValidator(_device_name), Field(json_schema_extra={"pattern": f"^({_DEVICE})$"})] = (
        "auto"
    )
    """"cpu", "mps", "cuda" or "cuda:NUMBER"; "auto" is the best there is."""
    precision: Literal["auto", "float32", "tf32", "bfloat16", "float64"] = "auto"
    """Of the computations; "auto" is tf32 on CUDA devices, else float32."""
    threads: Literal["auto"] | Annotated[int, Field(ge=1, le=1024)] = "auto"
    """CPU threads; they belong to the run's bytes."""
    joint: Literal["auto"] | bool = "auto"
    """Run a network's uses of one turn as one batch."""
    log_every: Positive = 20
    """Steps from one reading of the device to the next."""


class Spec(BaseModel):
    """An experiment. Of a resolved one every default is filled and no `auto` is left."""

    model_config = DESCRIBED
    name: Annotated[str, AfterValidator(_plain_name)]
    """Names the run's folder; by default the file's name."""
    about: str = ""
    """What the experiment is, in a sentence."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Of all random draws: initial weights, batches, noise."""
    data: Data
    """The images of both domains."""
    translations: Annotated[tuple[Literal["ab", "ba"], ...], Field(min_length=1), AfterValidator(_distinct)] = (
        "ab",
        "ba",
    )
    """The ways to train: "ab" translates images of domain a into images of domain b, "ba" back."""
    generator: Options
    """The network that translates, one for each way."""
    discriminators: dict[str, Options] = Field(default_factory=dict)
    """{name: the network that scores}, by names of your choice."""
    losses: Annotated[dict[str, Options], Field(min_length=1)]
    """{name: what the players minimise}, by names of your choice."""
    schedule: Options
    """Who moves when, with which optimiser, for how many steps."""
    ema_halflife_images: Annotated[float, Field(gt=0)] | None = None
    """Samples and evaluation use a moving average of the generators; a state's part in it halves in so many images."""
    samples: Samples = Samples()
    """Grids of held-out images and their translations."""
    checkpoints: Checkpoints = Checkpoints()
    """The whole state of training, from which a run goes on."""
    evaluation: Evaluation = Evaluation()
    """What is measured on held-out images."""
    runtime: Runtime = Runtime()
    """Where and how it is computed."""

    def as_json(self) -> Json:
        """The spec as its file would hold it."""
        result: Json = json.loads(self.model_dump_json())
        return result

    def fingerprint(self) -> str:
        """SHA-256 of what the spec trains: of all but `name`, `about`, `evaluation` and `runtime.device`."""
        return hashlib.sha256(json.dumps(_trains(self.as_json()), sort_keys=True).encode()).hexdigest()

    def weight(self, loss: str) -> Mapping[str, float]:
        """{player: weight} of a named loss of a resolved spec."""
        weight: Mapping[str, float] = self.losses[loss]["weight"]
        return weight


def _trains(spec: Json) -> Json:
    runtime = {k: v for k, v in spec["runtime"].items() if k != "device"}
    return {**{k: v for k, v in spec.items() if k not in ("name", "about", "evaluation")}, "runtime": runtime}


def differences(one: Spec, other: Spec) -> list[str]:
    """ "path: value in one, value in other" for all that the fingerprint covers."""
    a, b = (dict(_leaves(_trains(spec.as_json()))) for spec in (one, other))
    return [f"{k}: {a.get(k, 'absent')} / {b.get(k, 'absent')}" for k in sorted(a | b) if a.get(k) != b.get(k)]


def _leaves(value: Any, path: str = "") -> Iterable[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else key)
    else:
        yield path, json.dumps(value)


def merge(target: Any, patch: Any) -> Any:
    """JSON Merge Patch (RFC 7396), except that another `type` replaces the object, keeping only its `weight`."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    if "type" in patch and "type" in result and patch["type"] != result["type"]:
        result = {k: v for k, v in result.items() if k == "weight"}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


def read(path: str | Path) -> Json:
    """The JSON of a spec file, with what it extends merged in. Its name is by default the file's."""
    path = Path(path)
    try:
        return {"name": path.stem, **_read(path, ())}
    except RecursionError as error:
        raise SpecError(f"{path}: is nested too deeply") from error


def _read(path: Path, seen: tuple[Path, ...]) -> Json:
    try:
        real = path.resolve()
        # some editors begin a file with a byte order mark, which -sig drops
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, RuntimeError, ValueError) as error:
        what = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error
        why = error.strerror if isinstance(error, OSError) and error.strerror else what
        raise SpecError(f"{path}: can't be read: {why}{f' ({seen[-1].name} extends it)' if seen else ''}") from error
    if real in seen:
        chain = " -> ".join(p.name for p in (*seen, real))
        raise SpecError(f"{path}: extends itself: {chain}")
    spec = _parse(text, path)
    base = spec.pop("extends", None)
    if base is None:
        alone: Json = merge({}, spec)
        return alone
    if not isinstance(base, str):
        raise SpecError(f"{path}: extends: {json.dumps(base)} is not allowed: it is the path of another spec")
    extended = _read(path.parent / base, (*seen, real))
    # these speak of one file
    merged: Json = merge({k: v for k, v in extended.items() if k not in ("name", "about", "$schema")}, spec)
    return merged


def _parse(text: str, path: Path) -> Json:
    def constant(name: str) -> float:
        raise SpecError(f"{path}: {name} is not allowed: numbers are finite")

    def number(text: str) -> float:
        return value if isfinite(value := float(text)) else constant(text)

    def unique(pairs: list[tuple[str, Any]]) -> Json:
        keys = [k for k, _ in pairs]
        for key in keys:
            if keys.count(key) > 1:
                raise SpecError(f"{path}: the key {key!r} appears twice in one object")
        return dict(pairs)

    try:
        spec = json.loads(text, parse_constant=constant, parse_float=number, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise SpecError(f"{path}: is not JSON: line {error.lineno}, column {error.colno}: {error.msg}") from error
    except ValueError as error:
        # Python reads no integer of thousands of digits
        raise SpecError(f"{path}: is not allowed: {str(error).split(';')[0]}") from error
    if not isinstance(spec, dict):
        raise SpecError(f"{path}: is JSON, but not an object")
    return spec


def assignment(text: str) -> Json:
    """The patch that `--set path.to.key=value` says; the value is JSON, or else a string."""
    path, equals, value = text.partition("=")
    keys = [key.strip() for key in path.split(".")]
    if not equals or not all(keys):
        raise SpecError(f"--set {text}: is not of the form path.to.key=value")
    try:
        patch: Any = json.loads(value, parse_constant=str)
    except (ValueError, RecursionError):
        patch = value
    for key in reversed(keys):
        patch = {key: patch}
    result: Json = patch
    return result


def resolve(registry: Registry, spec: Json, where: str = "spec", like: Spec | None = None) -> Spec:
    """Check a spec and fill in every default and every `auto`; `like` is an earlier run's, whose autos are kept.

    Raises SpecError with one sentence that names the value, what is allowed and where it stands.
    """
    if "extends" in spec:
        raise SpecError(f"{where}: extends: only a file can extend another")
    # an editor's note on where the JSON Schema lies
    note = spec.get("$schema", "")
    if not isinstance(note, str):
        raise SpecError(f"{where}: $schema: {json.dumps(note)} is not allowed: it is the path of a JSON Schema")
    spec = {key: value for key, value in spec.items() if key != "$schema"}
    try:
        checked = Spec.model_validate_json(json.dumps(spec))
    except ValidationError as error:
        raise SpecError(f"{where}: {sentence(error, '', _known(error), spec)}") from error
    except (TypeError, ValueError, RecursionError) as error:
        raise SpecError(f"{where}: is not JSON: {error}") from error
    full = checked.model_copy(deep=True)
    full.data.a = component(registry, "source", checked.data.a, f"{where}: data.a")
    full.data.b = component(registry, "source", checked.data.b, f"{where}: data.b")
    full.generator = component(registry, "generator", checked.generator, f"{where}: generator")
    full.schedule = component(registry, "schedule", checked.schedule, f"{where}: schedule")
    for name, options in checked.discriminators.items():
        _check_label(name, f"{where}: discriminators")
        full.discriminators[name] = component(registry, "discriminator", options, f"{where}: discriminators.{name}")
    for name, options in checked.losses.items():
        _check_label(name, f"{where}: losses")
        place = f"{where}: losses.{name}"
        plain = {k: v for k, v in options.items() if k != "weight"}
        weight = _weight(options.get("weight", {}), place)
        full.losses[name] = {**component(registry, "loss", plain, place, ("weight",)), "weight": weight}
    full.evaluation = evaluation_of(registry, checked.evaluation, f"{where}: evaluation")
    full.runtime = _runtime(checked, f"{where}: runtime", like.runtime if like else None)
    return full


def evaluation_of(registry: Registry, asked: Evaluation, where: str) -> Evaluation:
    """What to measure, with every default filled. Raises SpecError."""
    full = asked.model_copy(
        update={
            "metrics": tuple(
                component(registry, "metric", as_options(metric), f"{where}.metrics.{index}")
                for index, metric in enumerate(asked.metrics)
            ),
            "features": None
            if asked.features is None
            else component(registry, "features", as_options(asked.features), f"{where}.features"),
        }
    )
    types = [as_options(metric)["type"] for metric in full.metrics]
    for name in types:
        if types.count(name) > 1:
            raise SpecError(f"{where}.metrics: {name!r} is named twice")
    if full.every is not None and not types:
        raise SpecError(f"{where}.every: {full.every} is not allowed: there are no metrics to measure")
    if full.choose is not None and full.every is None:
        raise SpecError(f"{where}.choose: {full.choose!r} chooses nothing: without `every` there is one checkpoint")
    return full


def as_options(component: str | Options) -> Options:
    """A component that is named by its type alone has its default options."""
    return {"type": component} if isinstance(component, str) else component


def _known(error: ValidationError) -> Iterable[str]:
    model: Any = Spec
    for part in error.errors(include_url=False)[0]["loc"][:-1]:
        field = getattr(model, "model_fields", {}).get(part)
        model = field.annotation if field is not None else None
    return getattr(model, "model_fields", {})


LABEL = "[A-Za-z0-9_-]+"


def _check_label(name: str, where: str) -> None:
    if not re.fullmatch(LABEL, name):
        raise SpecError(f"{where}: the name {name!r} is not allowed: letters, digits, '_' and '-'")


def _weight(weight: Any, where: str) -> Json:
    both = weight if isinstance(weight, dict) else {"generator": weight, "discriminator": weight}
    try:
        result: Json = json.loads(Weight.model_validate_json(json.dumps(both)).model_dump_json())
    except ValidationError as error:
        # of a number for both players, no player is to blame
        raise SpecError(sentence(error, f"{where}.weight", Weight.model_fields, weight)) from error
    return result


def component(registry: Registry, kind: str, options: Options, where: str, beside: tuple[str, ...] = ()) -> Options:
    """A component's options with every default filled, nested ones too; `beside` are the place's own keys."""
    name = options.get("type")
    if not isinstance(name, str):
        raise SpecError(f"{where}: names no {kind}: its type is {'missing' if name is None else json.dumps(name)}")
    found = registry.find(kind, name, where)
    sign = signature(found.cls)
    plain = {k: v for k, v in options.items() if k != "type" and k not in sign.nested}
    try:
        full = json.loads(validate(found.cls, plain).model_dump_json())
    except ValidationError as error:
        known = [*sign.model.model_fields, *sign.nested, "type", *beside]
        said = sentence(error, where, known, plain)
        match error.errors(include_url=False)[0]:
            case {"type": "extra_forbidden", "loc": (key,)} if path := _path_to(registry, sign.nested, options, key):
                said += f"; there is {where.rpartition(': ')[2]}.{path}"
        raise SpecError(f"{said} ({found.full_name})") from error
    for option, inner in sign.nested.items():
        if not isinstance(value := options.get(option), dict):
            raise SpecError(f"{where}.{option}: is required: the {inner} that {kind} {name!r} wraps, an object")
        full[option] = component(registry, inner, value, f"{where}.{option}")
    return {"type": name, **full}


def _path_to(registry: Registry, nested: Mapping[str, str], options: Options, name: Any) -> str:
    """The path, from a component of these options, to a nested one's option of this name; "" where there is none."""
    for option, kind in nested.items():
        inner = options.get(option)
        if isinstance(inner, dict) and inner.get("type") in registry.names(kind):
            sign = signature(registry.find(kind, inner["type"], option).cls)
            if name in sign.model.model_fields or name in sign.nested:
                return f"{option}.{name}"
            if path := _path_to(registry, sign.nested, inner, name):
                return f"{option}.{path}"
    return ""


def sees(registry: Registry, options: Options) -> str:
    """What the discriminator of these options looks at; a wrapper looks at what the one it wraps does."""
    cls = registry.find("discriminator", options["type"], "discriminators").cls
    for option, kind in signature(cls).nested.items():
        if kind == "discriminator":
            return sees(registry, options[option])
    assert issubclass(cls, Discriminator)
    return cls.sees


def _runtime(spec: Spec, where: str, like: Runtime | None) -> Runtime:
    asked = spec.runtime
    runs_on = device(asked.device, where)
    kept = like or Runtime()

    def auto(name: str, choose: Any) -> Any:
        value, before = getattr(asked, name), getattr(kept, name)
        return value if value != "auto" else before if before != "auto" else choose

    precision = auto("precision", "tf32" if runs_on.startswith("cuda") else "float32")
    if precision == "float64" and runs_on == "mps":
        raise SpecError(f"{where}.precision: 'float64' is not allowed: mps has no float64")
    if precision == "tf32" and not runs_on.startswith("cuda"):
        raise SpecError(f"{where}.precision: 'tf32' is not allowed: only CUDA devices have it, not {runs_on!r}")
    return Runtime(
        device=runs_on,
        precision=precision,
        threads=auto("threads", torch.get_num_threads()),
        # on two cores: no difference at 8 images of 64 pixels, a few per cent faster at 1 of 128; on CUDA not measured
        joint=auto("joint", runs_on != "cpu" or spec.data.batch == 1),
        log_every=asked.log_every,
    )


def moved_here(spec: Json) -> Json:
    """A resolved spec that was kept, perhaps on another machine: with a device of this one, and a precision that it
    has, where it lacks those."""
    runtime = {**spec.get("runtime", {})}
    if runtime.get("device") not in devices():
        runtime["device"] = "auto"
    if runtime.get("precision") == "tf32" and not device(str(runtime["device"]), "runtime").startswith("cuda"):
        runtime["precision"] = "float32"
    return {**spec, "runtime": runtime}


def devices() -> list[str]:
    """The names of this machine's devices, the best first."""
    available = ["cpu"]
    if torch.backends.mps.is_available():
        available.insert(0, "mps")
    if torch.cuda.is_available():
        available[:0] = ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    return available


def device(asked: str, where: str) -> str:
    """The device of a name, or the best there is for "auto". Raises SpecError where it isn't here."""
    available = devices()
    if asked == "auto":
        return available[0]
    if asked not in available:
        raise SpecError(f"{where}.device: {asked!r} is not available here; known are: {', '.join(available)}")
    return asked
