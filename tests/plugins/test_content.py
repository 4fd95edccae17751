"""Content preservation, measured on pictures whose content is known: avatars, and crops of photographs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import skimage
import torch
from ganlab_avatars import HAIR, PAIR, Avatars
from ganlab_content import Content, judge
from ganlab_content.agreement import agreement, colours, edges
from ganlab_content.judge import Judge, Shared
from pydantic import ValidationError
from skimage.filters import sobel_h, sobel_v
from skimage.transform import downscale_local_mean

from ganlab import Estimate, Images, MetricInputs, Unavailable
from ganlab.components.options import schema, sentence, signature, validate
from ganlab.determinism import keyed

SIZE = 32
HELD = 150
SHADES = {"dark": ["black", "brown"], "light": ["red", "blond", "grey"]}
HAIR_SHADES = Shared(
    attribute={"a": "hair_color", "b": "hair_color"},
    classes={shade: [HAIR[name] for name in names] for shade, names in SHADES.items()},
)
HAIR_COLOUR = Shared(attribute="hair_color")


def copy(images: Images, pixels: Sequence[np.ndarray[Any, Any]] | None = None) -> Images:
    """A translation: other pixels, without attributes."""
    return Images(list(images.pixels if pixels is None else pixels), images.domain)


def around(estimate: Estimate, value: float | None) -> bool:
    return value is not None and estimate.low <= value <= estimate.high


@pytest.fixture(scope="module")
def avatars() -> MetricInputs:
    """450 avatars of each style, 300 for training and 150 held out. The outputs of direction "ab" are its inputs."""
    sets = {}
    for domain, style in zip("ab", PAIR, strict=True):
        source = Avatars(style, 300 + HELD)
        keys = source.keys(domain)
        pixels = [source.image(key, SIZE) for key in keys]
        sets[domain] = Images(pixels, domain, [source.attributes(key) for key in keys], real=True)
    held = {domain: images.take(range(300, 300 + HELD)) for domain, images in sets.items()}
    learning = {domain: images.take(range(300)) for domain, images in sets.items()}
    return MetricInputs("ab", held["a"], held["b"], held["a"], train=learning)


@pytest.fixture(scope="module")
def photographs() -> Images:
    """Sixty crops of 64 x 64 pixels."""
    draws = keyed("crops")
    pictures = [skimage.data.astronaut(), skimage.data.chelsea(), skimage.data.coffee()]
    crops = []
    for picture in pictures * 20:
        row, column = (int(draws.integers(side - 64)) for side in picture.shape[:2])
        crops.append(picture[row : row + 64, column : column + 64, :3])
    return Images(crops)


def test_a_judged_class_is_near_the_judges_own_accuracy_where_kept_and_at_chance_where_shuffled(
    avatars: MetricInputs,
) -> None:
    metric = Content({"hair": HAIR_COLOUR})

    def hair(inputs: Images, outputs: Images) -> Estimate:
        return metric.measure(replace(avatars, inputs=inputs, outputs=outputs))["content-hair"]

    real = avatars.targets
    others, same = real.take(range(HELD // 2)), real.take(range(HELD // 2, HELD))
    own = hair(others, others)
    assert own.value >= 0.95
    assert own.counts == {"pairs": HELD // 2}
    kept = hair(same, copy(same))
    assert kept.low <= own.high
    assert own.low <= kept.high
    # the judge was trained once, on domain b
    assert len(avatars.kept) == 1

    order = keyed("shuffled").permutation(HELD).tolist()
    shuffled = hair(real, copy(real.take(order)))
    assert shuffled.chance == pytest.approx(0.2, abs=0.03)
    assert around(shuffled, shuffled.chance)
    assert shuffled.high < 0.35

    # a translator that keeps the hair colour alone: its output is the first picture in style b with that colour
    inputs = avatars.inputs
    assert inputs is not None
    assert inputs.attributes is not None
    assert real.attributes is not None
    colours = [each["hair_color"] for each in real.attributes]
    perfect = real.take([colours.index(each["hair_color"]) for each in inputs.attributes])
    assert hair(inputs, copy(perfect)).value >= 0.95

    # translations are not exact
    moved = [np.roll(pixels, (1, -1), (0, 1)) for pixels in real.pixels]
    blurred = [skimage.filters.gaussian(pixels, 0.7, channel_axis=2, preserve_range=True) for pixels in moved]
    assert hair(real, copy(real, [pixels.round().astype(np.uint8) for pixels in blurred])).value >= 0.9
    tinted = [(0.9 * pixels + np.array([12, 0, 8])).astype(np.uint8) for pixels in real.pixels]
    assert hair(real, copy(real, tinted)).value >= 0.9

    # pictures of another size give the same result
    large = [pixels.repeat(2, 0).repeat(2, 1) for pixels in real.pixels]
    assert hair(real, copy(real, large)) == hair(real, copy(real))


def test_chance_is_the_mean_over_all_pairings(avatars: MetricInputs) -> None:
    """Each shift pairs the outputs with other inputs; all shifts together pair each output with each input once."""
    metric = Content({"hair": HAIR_COLOUR})
    inputs = avatars.targets.take(range(20))
    outputs = copy(avatars.targets.take(range(10, 30)))
    shifted = [
        metric.measure(replace(avatars, inputs=inputs, outputs=outputs.take([(i + shift) % 20 for i in range(20)])))
        for shift in range(20)
    ]
    for name in metric.numbers:
        mean = np.mean([found[name].value for found in shifted])
        assert [found[name].chance for found in shifted] == pytest.approx([mean] * 20, abs=1e-9)


def test_the_same_judge_again(avatars: MetricInputs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same key gives the same bytes, whatever the state of torch's global generator and the number of threads are.
    Neither is changed."""
    monkeypatch.setattr(judge, "STEPS", 10)
    images = avatars.train["b"].take(range(40))
    classes = ["even" if i % 2 == 0 else "odd" for i in range(40)]

    def weights(*key: int | str) -> list[bytes]:
        made = Judge(images, classes, *key)
        return [value.numpy().tobytes() for value in made._net.state_dict().values()]

    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = weights(0, "b", "hair")
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        with torch.no_grad():
            assert weights(0, "b", "hair") == one
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)
    assert weights(1, "b", "hair") != one


@pytest.mark.parametrize("pictures", ["avatars", "photographs"])
def test_colours_and_edges_of_known_pairs(pictures: str, request: pytest.FixtureRequest) -> None:
    """A copy gives 1, random pairs give chance. A negative gives -1 for colours and 1 for edges, which it keeps."""
    given = request.getfixturevalue(pictures)
    images = given.targets if isinstance(given, MetricInputs) else given

    def measured(outputs: Images) -> tuple[Estimate, Estimate]:
        found = Content().measure(MetricInputs("", outputs, images, images))
        return found["content-colour"], found["content-edges"]

    colour, edge = measured(copy(images))
    assert (colour.value, edge.value) == pytest.approx((1, 1), abs=1e-12)
    colour, edge = measured(copy(images, [255 - pixels for pixels in images.pixels]))
    assert (colour.value, edge.value) == pytest.approx((-1, 1), abs=1e-12)
    for seen in (colours(images), edges(images)):
        shuffled = [agreement(seen, seen[keyed("shuffled", i).permutation(len(images))]) for i in range(40)]
        assert sum(around(estimate, 0) for estimate in shuffled) >= 34
        assert np.mean([estimate.value for estimate in shuffled]) == pytest.approx(0, abs=0.04)


def test_colours_and_edges_are_what_scikit_image_makes_them(photographs: Images) -> None:
    """Inputs of 64 pixels and outputs of 32, in float64."""
    inputs = photographs
    outputs = Images([pixels[::2, ::2][:, ::-1] for pixels in photographs.pixels])

    def colours_of(image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        scale = image.shape[0] // 8
        return np.asarray(downscale_local_mean(image.astype(float), (scale, scale, 1))).ravel()

    def edges_of(image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        scale = image.shape[0] // 32
        grey = downscale_local_mean(image.astype(float), (scale, scale, 1)) @ [0.299, 0.587, 0.114]
        return np.asarray(np.hypot(sobel_h(grey), sobel_v(grey))[1:-1, 1:-1]).ravel()

    found = Content().measure(MetricInputs("", outputs, outputs, inputs))
    for name, vector in {"content-colour": colours_of, "content-edges": edges_of}.items():
        x, y = (np.stack([vector(image) for image in images.pixels]) for images in (inputs, outputs))
        x, y = x - x.mean(0), y - y.mean(0)
        cosines = (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
        half = 2.0009953780882672 * cosines.std(ddof=1) / 60**0.5  # Student's 97.5% quantile at 59
        assert (found[name].value, found[name].low) == pytest.approx((cosines.mean(), cosines.mean() - half), abs=1e-5)


def test_outputs_that_are_all_alike_keep_nothing(photographs: Images) -> None:
    for pixels in (photographs.pixels[0], np.full((64, 64, 3), 77, np.uint8)):
        outputs = copy(photographs, [pixels] * len(photographs))
        found = Content().measure(MetricInputs("", outputs, outputs, photographs))
        assert {(e.value, e.low, e.high, e.chance) for e in found.values()} == {(0, 0, 0, 0)}


def test_pairs_may_differ_in_size(photographs: Images) -> None:
    """An image in a folder of several sizes contributes as in a folder of images of its size."""
    outputs = [pixels if i % 2 else pixels.repeat(2, 0).repeat(3, 1) for i, pixels in enumerate(photographs.pixels)]
    found = Content().measure(MetricInputs("", copy(photographs, outputs), photographs, photographs))
    assert [found[name].value for name in ("content-colour", "content-edges")] == pytest.approx([1, 1], abs=1e-9)


def labelled(domain: str, values: Sequence[str | None], attribute: str = "hair") -> Images:
    """Plain grey pictures."""
    known = [{"hat": "none"} | ({} if value is None else {attribute: value}) for value in values]
    return Images([np.full((8, 8, 3), 9 * i % 256, np.uint8) for i in range(len(values))], domain, known)


def test_classes_are_shared_by_declaration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each domain has its own names; images in no class are left out, as the counts show."""
    shared = Shared(
        attribute={"a": "hair", "b": "fur"}, classes={"dark": ["black", "noir"], "light": ["blond", "clair"]}
    )
    assert shared.of(labelled("a", ["black", "red", None, "blond"])) == ["dark", None, None, "light"]
    assert shared.of(labelled("b", ["clair", "noir"], "fur")) == ["light", "dark"]
    assert Shared(attribute="hair").of(labelled("b", ["x", None])) == ["x", None]

    monkeypatch.setattr(judge, "STEPS", 2)
    inputs = labelled("a", ["black", "red", None, "blond", "blond", "black", "black"])
    learning = {"b": labelled("b", ["clair", "noir"] * 10, "fur")}
    data = MetricInputs("ab", copy(inputs), labelled("b", ["noir"] * 4, "fur"), inputs, train=learning)
    found = Content({"hair": shared}).measure(data)
    assert found["content-hair"].counts == {"pairs": 5}
    assert found["content-colour"].counts == {"pairs": 7}


@pytest.mark.parametrize(
    ("inputs", "learning", "says"),
    [
        (
            ["x"] * 4,
            labelled("b", ["x", "y"] * 10, "fur"),
            "no image of domain b has an attribute 'hair'; known are: fur, hat",
        ),
        (["z"] * 4, labelled("b", ["x", "y"] * 10), "domains a and b have no class of 'h' in common (z; x, y)"),
    ],
)
def test_what_does_not_fit_the_images_is_said(inputs: list[str], learning: Images, says: str) -> None:
    given = labelled("a", inputs)
    data = MetricInputs("ab", copy(given), learning, given, train={"b": learning})
    found = Content({"h": Shared(attribute="hair")}).measure(data)
    assert says in str(found.pop("content-h"))
    # the numbers that need no labels are still measured
    assert all(isinstance(estimate, Estimate) for estimate in found.values())
    assert list(found) == ["content-colour", "content-edges"]


def test_values_that_no_class_has_are_said() -> None:
    shared = Shared(attribute="hair", classes={"dark": ["black"], "light": ["blond"]})
    with pytest.raises(
        Unavailable, match=r"no class has a value of the attribute 'hair' of domain a.* are: azure, pink$"
    ):
        shared.of(labelled("a", ["pink", "azure", None]))


@pytest.mark.parametrize(
    ("inputs", "learning", "says"),
    [
        (Images(labelled("a", ["x"] * 4).pixels, "a"), labelled("b", ["x", "y"] * 10), "domain a have no attributes"),
        (labelled("a", ["x"] * 4), Images(labelled("b", ["x"] * 20).pixels, "b"), "domain b have no attributes"),
        (labelled("a", ["x"] * 4), labelled("b", ["x"] * 20), "domain b has no other class of 'h' than x"),
        (labelled("a", ["x"] * 4), labelled("b", ["x", "y"] * 9), "at least 20 images (training images with a class"),
        (
            labelled("a", ["x", "x", "x", None]),
            labelled("b", ["x", "y"] * 10),
            "at least 4 images (inputs with a class",
        ),
    ],
    ids=["inputs unlabelled", "learning unlabelled", "one class", "few to learn from", "few to measure"],
)
def test_the_reason_why_there_is_nothing_to_judge_is_said(inputs: Images, learning: Images, says: str) -> None:
    data = MetricInputs("ab", copy(inputs), learning, inputs, train={"b": learning})
    found = Content({"h": Shared(attribute="hair")}).measure(data)
    assert says in str(found["content-h"])
    assert isinstance(found["content-edges"], Estimate)


def test_two_folders_have_nothing_to_learn_from() -> None:
    inputs = labelled("a", ["x"] * 4)
    found = Content({"h": Shared(attribute="hair")}).measure(MetricInputs("", copy(inputs), inputs, inputs))
    assert "needs a run" in str(found["content-h"])


def test_without_pairs_there_is_nothing_to_measure(photographs: Images) -> None:
    with pytest.raises(Unavailable, match="needs the input of each output"):
        Content().measure(MetricInputs("", photographs, photographs))
    few = photographs.take(range(3))
    with pytest.raises(Unavailable, match="needs at least 4 images"):
        Content().measure(MetricInputs("", few, photographs, few))


def test_numbers_are_named_by_the_options() -> None:
    assert list(Content().numbers) == ["content-colour", "content-edges"]
    metric = Content({"hair": HAIR_SHADES})
    assert list(metric.numbers) == ["content-hair", "content-colour", "content-edges"]
    assert "the hair of their input" in metric.numbers["content-hair"].about
    with pytest.raises(ValueError, match="shared has 'edges', which is the name of a number without labels"):
        Content({"edges": HAIR_COLOUR})


def test_options_come_from_a_spec_and_go_back() -> None:
    assert signature(Content).nested == {}
    assert "Shared" in schema(Content)["$defs"]
    given = {"shared": {"hair": HAIR_SHADES.model_dump()}}
    options = validate(Content, given)
    assert options.model_dump() == given
    assert dict(options) == {"shared": {"hair": HAIR_SHADES}}
    assert validate(Content, {}).model_dump() == {"shared": {}}


@pytest.mark.parametrize(
    ("shared", "says"),
    [
        ({"attribute": {"a": "hair"}}, "the attribute must be named for both domains"),
        ({"attribute": "hair", "classes": {"dark": ["x"]}}, "there is only one class, 'dark'; at least two are needed"),
        ({"attribute": "hair", "classes": {"dark": ["x"], "light": ["x"]}}, "the value 'x' is in two classes"),
        ({"attribute": "hair", "class": {}}, "unknown key"),
        ({"attribute": 3}, "3 is not allowed"),
    ],
)
def test_wrong_options_are_named(shared: dict[str, Any], says: str) -> None:
    given = {"shared": {"hair": shared}}
    with pytest.raises(ValidationError) as error:
        validate(Content, given)
    text = sentence(error.value, "metric", ["shared"], given)
    assert text.startswith("metric.shared.hair")
    assert says in text
