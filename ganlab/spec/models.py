"""The data model of a spec: its keys, their types, ranges and defaults, and the components it resolves to."""

from __future__ import annotations

import functools
import hashlib
import json
import operator
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr

from ganlab.components.options import STRICT, signature
from ganlab.components.registry import Component
from ganlab.errors import SpecError, shortened
from ganlab.interfaces.metrics import Metric

Json = dict[str, Any]
"""A JSON object."""


Options = dict[str, Any]
"""A component as a spec writes it: {"type": its name, option: value}."""


DEEPEST = 100
"""The most objects and arrays that a spec may nest in one another."""


LABEL = "[A-Za-z0-9_-]+"
"""The names that a spec may give its losses and discriminators, as a regular expression."""


TRAINS_NOTHING = (
    "name",
    "about",
    "samples",
    "checkpoints",
    "evaluation",
    "callbacks",
    # the resolved spec has the sources that they stand for
    "data.root",
    "data.swap",
    "runtime.device",
    "runtime.checkpoint_activations",
    "runtime.log_every",
    # the update is that of the whole batch, except in the last digits
    "runtime.accumulate",
    # a captured step gives the same bytes
    "runtime.capture",
)
"""The keys of a spec that do not affect training, so that they may change when a run resumes."""


_DEVICE = r"auto|cpu|mps|cuda(:[0-9]{1,3})?"


def check_json(value: Any, where: str) -> None:
    """Raises SpecError for JSON that no spec holds: nested deeper than `DEEPEST`, or with text that is not UTF-8.

    The code that reads specs recurses into them. Names of files may be any bytes, which Python keeps as surrogates.
    """
    level = [value]
    for _ in range(DEEPEST + 1):
        within: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                within += (*one, *one.values())
            elif isinstance(one, list | tuple):
                within += one
            elif isinstance(one, str) and re.search("[\ud800-\udfff]", one):
                raise SpecError(f"{where}: {shortened(one, 80)!r} is not allowed: it is not UTF-8")
        level = within
    if level:
        raise SpecError(f"{where}: is nested too deeply: at most {DEEPEST} levels are allowed")


def _plain_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", name) or ".." in name:
        raise ValueError(f"{name!r} is not allowed: it names a folder, so at most 100 letters, digits, '.', '_', '-'")
    return name


def _distinct(directions: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(directions)) != len(directions):
        raise ValueError(f"{list(directions)} is not allowed: a direction is named once")
    return directions


def _device_name(device: str) -> str:
    if not re.fullmatch(_DEVICE, device):
        raise ValueError(f"{device!r} is not allowed: it should be 'auto', 'cpu', 'mps', 'cuda' or 'cuda:NUMBER'")
    return device


Steps = Annotated[int, Field(ge=1, le=10**9)]
"""A number of steps between two things that a run does."""


MOST_PARTS = 100
"""The most losses, discriminators or metrics of a spec."""


DESCRIBED = ConfigDict(**STRICT, use_attribute_docstrings=True)
"""The string under a field is the field's description in the JSON Schema."""


@dataclass(frozen=True)
class ResolvedComponent:
    """A component of a resolved spec: its class, its options, and the components nested in it."""

    place: str
    """The component's place in the spec, for example "data.a", "losses.cycle" or "discriminators.image.of"."""
    component: Component
    """The registry's record: kind, name, class, plugin, package and version."""
    options: Mapping[str, Any]
    """The options that are not components, as JSON, with every default filled in."""
    nested: Mapping[str, ResolvedComponent]
    """{option: the component that the constructor gets for it}."""

    @property
    def title(self) -> str:
        """The component's name, with the names of its nested components: "critic(patch)"."""
        inner = ", ".join(component.title for component in self.nested.values())
        return f"{self.component.name}({inner})" if inner else self.component.name

    @property
    def label(self) -> str:
        """A feature network's name in the names of numbers: its type, or "TYPE-VALUE" with the values of its
        `label_options` that are not the defaults."""
        fields = signature(self.component.cls).model.model_fields
        options = getattr(self.component.cls, "label_options", ())
        values = [self.options[option] for option in options if self.options[option] != fields[option].default]
        return "-".join(map(str, (self.component.name, *values)))

    def walk(self) -> Iterator[ResolvedComponent]:
        """Yields the component, then all that are nested in it, at any depth."""
        yield self
        for component in self.nested.values():
            yield from component.walk()

    def as_json(self) -> Options:
        """Returns the component as a spec writes it, with every default."""
        inner = {option: component.as_json() for option, component in self.nested.items()}
        return {"type": self.component.name, **self.options, **inner}

    @property
    def identity(self) -> str:
        """`as_json` as a text, which is equal for equal components."""
        return json.dumps(self.as_json(), sort_keys=True)


@dataclass(frozen=True)
class ResolvedMetric(ResolvedComponent):
    """A metric of a resolved evaluation."""

    features: ResolvedComponent | None
    """The feature network that it names; None if it uses the evaluation's, or none."""

    @property
    def key(self) -> str:
        """The metric's name in the evaluation: its type, or "TYPE-FEATURES" if it names its own feature network."""
        return self.component.name if self.features is None else f"{self.component.name}-{self.features.label}"

    def walk(self) -> Iterator[ResolvedComponent]:
        yield from super().walk()
        if self.features is not None:
            yield from self.features.walk()

    def as_json(self) -> Options:
        own = {} if self.features is None else {"features": self.features.as_json()}
        return {**super().as_json(), **own}


class Data(BaseModel):
    """The images of both domains, and how they are dealt into batches."""

    model_config = DESCRIBED
    a: Options
    """The image source of domain a."""
    b: Options
    """The image source of domain b."""
    root: Annotated[str, Field(min_length=1, json_schema_extra={"format": "path"})] | None = None
    """A folder with the images of both domains, instead of a and b: trainA and trainB, train with two folders, or two
    folders. A split such as testA and testB is held out. A folder with images and no folders is domain a alone. The
    resolved spec has sources for a and b instead."""
    swap: bool = False
    """Exchange the domains that are found in root."""
    size: Annotated[int, Field(ge=4, le=4096)] = 64
    """The height and width of the images in pixels."""
    resize: Annotated[int, Field(ge=4, le=4096)] | None = None
    """The height and width in pixels at which training images are loaded before crop cuts them: at least size. Allowed
    only with crop. CycleGAN cuts 256 pixels out of 286 (arXiv:1703.10593)."""
    crop: bool = False
    """Cut a square of size pixels out of each training image, loaded at resize pixels, at a random place. Allowed only
    with resize. Held-out images are resized to size and not cut, as in CycleGAN's own test."""
    batch: Annotated[int, Field(ge=1, le=65536)] = 8
    """The number of images of each domain in a batch, over which each update averages the gradients."""
    flip: bool = True
    """Mirror each training image left to right with a probability of one half."""
    paired: bool = False
    """Draw each image of domain a together with its partner in domain b, with the same cut and flip, and hold out both
    or neither. Partners have equal keys, or keys that differ only in the suffix; the key of an image of `folder` is its
    path inside the folder. Images without a readable partner are named and left out."""
    holdout: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """The fraction of each domain's images that is held out of training, for samples and evaluation. Not used for a
    source that has held-out images of its own, such as a folder with held_out."""


class Weight(BaseModel):
    """The factors on a loss's terms, one for each player."""

    model_config = DESCRIBED
    generator: Annotated[float, Field(ge=0)] = 1.0
    """The factor on the generators' terms. A term of weight 0 is not computed."""
    discriminator: Annotated[float, Field(ge=0)] = 1.0
    """The factor on the discriminators' terms. A term of weight 0 is not computed."""


class Init(BaseModel):
    """The weights that a run begins with."""

    model_config = DESCRIBED
    run: Annotated[str, Field(min_length=1, json_schema_extra={"format": "path"})] | None = None
    """The folder of another run: generators begin with its weights, averaged ones if it has them, and so do the
    discriminators that it has under the same names. null for random weights."""
    checkpoint: Literal["last", "best"] = "last"
    """The checkpoint of that run: the last, or the one with the best monitor during its training."""


class Samples(BaseModel):
    """The sample grids that a run draws."""

    model_config = DESCRIBED
    every: Steps = 500
    """The number of steps from one sample grid to the next."""
    count: Annotated[int, Field(ge=1, le=1024)] = 16
    """The number of held-out images of each direction in a grid."""


class Checkpoints(BaseModel):
    """The saved states of training."""

    model_config = DESCRIBED
    every: Steps = 500
    """The number of steps from one checkpoint to the next."""
    keep: Annotated[int, Field(ge=1, le=10**6)] = 2
    """The number of checkpoints to keep: the newest ones."""


class Evaluation(BaseModel):
    """The metrics of a run, and the steps at which they are measured."""

    model_config = DESCRIBED
    metrics: Annotated[tuple[str | Options, ...], Field(max_length=MOST_PARTS)] = ()
    """The metrics to measure, in this order. Each is a type, or an object with a type and options. A metric
    that compares feature vectors also takes `features`, its own feature network instead of the evaluation's."""
    features: str | Options | None = None
    """The network whose feature vectors metrics such as FID compare: a type, or an object with a type and options."""
    every: Steps | None = None
    """The number of steps from one measurement during training to the next. The best checkpoint is then kept. By
    default a run is measured only at its end."""
    during: tuple[str, ...] | None = None
    """The types of the metrics that are measured during training; those of other types take their time only at the end.
    By default all are measured."""
    monitor: str | None = None
    """The number whose mean over the directions picks the best checkpoint. By default the first number measured."""
    _metrics: tuple[ResolvedMetric, ...] = PrivateAttr(())
    _features: ResolvedComponent | None = PrivateAttr(None)

    @property
    def metric_components(self) -> tuple[ResolvedMetric, ...]:
        """The metrics of a resolved evaluation, in order. Raises ValueError if it is not resolved."""
        if len(self._metrics) != len(self.metrics):
            raise ValueError("the evaluation is not resolved: its metrics are names")
        return self._metrics

    @property
    def features_component(self) -> ResolvedComponent | None:
        """The feature network of a resolved evaluation, if it names one. Raises ValueError if it is not resolved."""
        if self.features is not None and self._features is None:
            raise ValueError("the evaluation is not resolved: its feature network is a name")
        return self._features

    @property
    def keys_during(self) -> list[str]:
        """The keys of the metrics of a resolved evaluation that are measured during training."""
        kinds = self.during
        return [each.key for each in self.metric_components if kinds is None or each.component.name in kinds]

    def features_of(self, metric: ResolvedMetric) -> ResolvedComponent | None:
        """Returns the feature network of a metric: its own, or the evaluation's; None if it compares no vectors."""
        cls = metric.component.cls
        return metric.features or self.features_component if issubclass(cls, Metric) and cls.on_features else None


class Runtime(BaseModel):
    """The device of a run, its number format, its threads, and the parts of its batches."""

    model_config = DESCRIBED
    device: Annotated[str, AfterValidator(_device_name), Field(json_schema_extra={"pattern": f"^({_DEVICE})$"})] = (
        "auto"
    )
    """"cpu", "mps", "cuda" or "cuda:NUMBER". "auto" is the best device that the machine has."""
    precision: Literal["auto", "float32", "tf32", "bfloat16", "float64"] = "auto"
    """The number format of the computations. "auto" is the fastest that `ganlab bench --tune` has measured on such a
    device. If it has measured none, "auto" is tf32 on CUDA devices, bfloat16 on CPUs that compute with it (AMX or
    AVX512-BF16), otherwise float32."""
    threads: Literal["auto"] | Annotated[int, Field(ge=1, le=1024)] = "auto"
    """The number of CPU threads. The last digits of the results depend on it. "auto" is torch's choice."""
    accumulate: Annotated[int, Field(ge=1, le=65536)] = 1
    """The number of equal parts into which a batch is divided, to fit into less memory: they are computed one after the
    other, and each update averages their gradients. It has to divide data.batch. The update is that of the whole batch,
    except in the last digits, and unless a network or a loss compares the images of a batch, as batch norms do, or a
    network draws random numbers. A step needs no less memory if it begins with a discriminators' turn and the
    generators' turn uses the same batch."""
    deterministic: bool = True
    """Let cuDNN compute with deterministic algorithms on CUDA devices, so that the same spec gives the same bytes. If
    false, it takes the algorithms that it measures to be the fastest. The gain has not been measured yet. No effect on
    other devices."""
    capture: bool = True
    """On CUDA devices, capture the steps as CUDA graphs, which should give the same bytes as ordinary steps. This has
    not been run on a GPU yet. If a component can't be captured, the run warns and continues with ordinary steps. No
    effect on other devices, in several processes, or with checkpoint_activations."""
    checkpoint_activations: bool = False
    """Keep only the inputs and outputs of networks; the backward pass computes the activations inside them again. A
    step takes less memory and more time. On a CPU the results are the same to the byte."""
    compile: Literal["auto"] | bool = "auto"
    """Compile the networks with `torch.compile`, which fuses norms, activations and padding. The first steps then take
    up to a few minutes. Networks that a loss differentiates twice, as gradient penalties do, are not compiled. Samples
    and evaluations use the networks without the compiler. The last digits of the results depend on this key. "auto" is
    false unless `ganlab bench --tune` has measured that true saves time, in this precision on such a device. Not
    together with checkpoint_activations."""
    log_every: Annotated[int, Field(ge=1, le=10_000)] = 20
    """The number of steps from one reading of the losses to the next. Each reading waits for the device. The first step
    of a process is read at once."""


class Spec(BaseModel):
    """An experiment. A resolved spec has every default and every "auto" filled in, and knows its components."""

    model_config = DESCRIBED
    name: Annotated[str, AfterValidator(_plain_name)]
    """The name of the run's folder. By default the name of the spec's file."""
    about: str = ""
    """One sentence that says what the experiment is."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """The random seed of the whole run: of initial weights, batches and noise."""
    data: Data
    """The images of both domains."""
    directions: Annotated[
        tuple[Literal["ab", "ba"], ...], Field(min_length=1, max_length=2), AfterValidator(_distinct)
    ] = (
        "ab",
        "ba",
    )
    """The directions to train: "ab" translates images of domain a into images of domain b, "ba" the reverse."""
    generator: Options
    """The network that translates. One is built for each direction."""
    discriminators: dict[str, Options] = Field(default_factory=dict, max_length=MOST_PARTS)
    """{name: a network that scores images or embeddings}. You choose the names."""
    losses: Annotated[dict[str, Options], Field(min_length=1, max_length=MOST_PARTS)]
    """{name: a loss that the players minimise}. You choose the names."""
    schedule: Options
    """The order in which generators and discriminators are updated, their optimizers, and the number of steps."""
    init: Init = Init()
    """The weights that the run begins with, random ones or another run's."""
    ema_halflife_images: Annotated[float, Field(gt=0)] | None = None
    """The half-life, in images, of a moving average of the generators' weights; early in training a twentieth of the
    images so far. Samples and results are made with the average; without one, with the weights as trained."""
    samples: Samples = Samples()
    """Grids of held-out images and their translations."""
    checkpoints: Checkpoints = Checkpoints()
    """The saved states of training, from which a run resumes."""
    evaluation: Evaluation = Evaluation()
    """The metrics to measure on held-out images."""
    callbacks: dict[str, Options | None] = Field(default_factory=dict, max_length=MOST_PARTS)
    """{name: what follows the run, for example to stop it early}. You choose the names. A callback that is on by
    default has the name of its type; null removes it."""
    runtime: Runtime = Runtime()
    """The device of the run, its number format, its threads, and the parts of its batches."""
    _callbacks: dict[str, ResolvedComponent] = PrivateAttr(default_factory=dict)
    _components: dict[str, ResolvedComponent] = PrivateAttr(default_factory=dict)

    @property
    def components(self) -> Mapping[str, ResolvedComponent]:
        """{place: component} of a resolved spec: sources, generator, discriminators, losses and schedule. Nested
        components, metrics and callbacks are not included. Empty if the spec is not resolved."""
        return self._components

    @property
    def callback_components(self) -> Mapping[str, ResolvedComponent]:
        """{name: callback} of a resolved spec. Empty if the spec is not resolved."""
        return self._callbacks

    def as_json(self) -> Json:
        """Returns the spec as its file would hold it."""
        result: Json = json.loads(self.model_dump_json())
        return result

    def locations(self) -> dict[str, str | None]:
        """Returns {place: path} for the paths of image sources and feature networks. A run compares the content of
        their files instead. The paths of other components are compared, since nothing says what they read. Empty if
        the spec is not resolved."""
        return {
            f"{part.place}.{place}": path
            for component in self._components.values()
            for part in component.walk()
            if part.component.kind in ("source", "features")
            for option in signature(part.component.cls).paths
            for place, path in _places(option, part.options[option]).items()
        }

    def trains(self) -> Json:
        """Returns the part of the spec that affects training: everything except `TRAINS_NOTHING` and `locations`."""
        spec = self.as_json()
        for place in (*TRAINS_NOTHING, *self.locations()):
            *outer, key = place.split(".")
            functools.reduce(operator.getitem, outer, spec).pop(key)
        if self.init.run is None:
            # random weights, as of runs that were made before there was a choice
            del spec["init"]
        if self.runtime.deterministic:
            # runs that have no such key were deterministic
            del spec["runtime"]["deterministic"]
        if not self.runtime.compile:
            # runs that have no such key were not compiled
            del spec["runtime"]["compile"]
        return spec

    def fingerprint(self) -> str:
        """Returns the SHA-256 of `trains`."""
        return hashlib.sha256(json.dumps(self.trains(), sort_keys=True).encode()).hexdigest()

    def weight(self, loss: str) -> Mapping[str, float]:
        """Returns {player: weight} of a loss, by its name in a resolved spec."""
        weight: Mapping[str, float] = self.losses[loss]["weight"]
        return weight


def _places(option: str, value: Any) -> dict[str, str | None]:
    """Returns {place: path} of an option that is a path; of an object of paths, a place for each name."""
    return {f"{option}.{name}": path for name, path in value.items()} if isinstance(value, dict) else {option: value}


def differences(one: Spec, other: Spec) -> list[str]:
    """Returns "path: value in one / value in other" for each difference that the fingerprint covers."""
    return [f"{k}: {a} / {b}" for k, (a, b) in leaf_differences(one.trains(), other.trains()).items()]


def leaf_differences(one: Json, other: Json) -> dict[str, tuple[str, str]]:
    """Returns {path: (value in one, value in other)} for each difference; the values are JSON, or "absent"."""
    a, b = dict(_leaves(one)), dict(_leaves(other))
    return {k: (a.get(k, "absent"), b.get(k, "absent")) for k in sorted(a | b) if a.get(k) != b.get(k)}


def changes(saved: Json, now: Json) -> list[str]:
    """Returns the differences of two `Spec.trains`, without options that only `now` has: components gain options."""
    a, b = dict(_leaves(saved)), dict(_leaves(now))
    return [f"{k}: {a[k]} / {b.get(k, 'absent')}" for k in sorted(a) if a[k] != b.get(k)]


def _leaves(value: Any, path: str = "") -> Iterable[tuple[str, str]]:
    if isinstance(value, dict) and (value or not path):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else key)
    else:
        yield path, json.dumps(value)


def as_options(component: str | Options) -> Options:
    """Returns a component as an object. A type alone means its default options."""
    return {"type": component} if isinstance(component, str) else component
