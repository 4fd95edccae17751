"""CelebA, Danbooru Faces and IMDB-WIKI, written in their own formats from real pictures, filtered image by image."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from ganlab_content.judge import Shared
from ganlab_faces import CelebA, DanbooruFaces, IMDBWiki
from ganlab_faces.celeba import ATTRIBUTES
from ganlab_faces.imdb_wiki import ages
from PIL import Image

import ganlab
from ganlab import SpecError
from ganlab.evaluation.splits import every_image
from ganlab.experiment import check
from ganlab.system.build import build_data
from helpers import faces
from helpers.faces import FACELESS, PEOPLE, Person, write_celeba, write_danbooru, write_imdb_wiki
from helpers.systems import TINY

Layout = Literal["flat", "authors", "csv"]


def pixels(path: Path) -> faces.Array:
    with Image.open(path) as image:
        return np.asarray(image)


def refusal(call: Callable[[], Any]) -> str:
    with pytest.raises(SpecError) as refused:
        call()
    assert "\n" not in str(refused.value)
    return str(refused.value)


# -- CelebA -----------------------------------------------------------------------------------------------------


def test_celeba_has_its_authors_attributes() -> None:
    assert [*ATTRIBUTES] == faces.ATTRIBUTES.split()


@pytest.mark.parametrize("layout", ["flat", "authors", "csv"])
def test_every_layout_of_celeba_gives_its_pictures_and_attributes(tmp_path: Path, layout: Layout) -> None:
    written = write_celeba(tmp_path, layout)
    source = CelebA(tmp_path)
    assert source.keys("a") == sorted(written.has)
    assert source.classes == 0
    for key, has in written.has.items():
        assert source.attributes(key) == {name: "true" if value else "false" for name, value in has.items()}
        assert source.is_image(key)
    for key in ("000001.jpg", "000024.jpg"):
        # the centred square of 178x218
        np.testing.assert_array_equal(source.image(key, 178), pixels(written.pictures / key)[20:198])
    for split in ("train", "valid", "test"):
        expected = [key for key, part in written.part.items() if part == split]
        assert CelebA(tmp_path, split=split).keys("b") == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "where",
    [
        {"Male": False},
        {"Male": True},
        {"Young": True, "Eyeglasses": False},
        {"5_o_Clock_Shadow": False, "Male": False, "Blurry": False},
    ],
)
def test_celeba_is_filtered_by_attributes(tmp_path: Path, where: dict[str, bool]) -> None:
    written = write_celeba(tmp_path)
    kept = CelebA(tmp_path, where=where).keys("a")
    assert 0 < len(kept) < len(written.has)
    for key, has in written.has.items():
        assert (key in kept) == all(has[name] == wanted for name, wanted in where.items())


def test_an_attribute_of_celeba_makes_two_classes(tmp_path: Path) -> None:
    written = write_celeba(tmp_path)
    source = CelebA(tmp_path, labels=("Smiling",))
    assert source.classes == 2
    assert {key: source.label(key) for key in source.keys("a")} == {
        key: int(has["Smiling"]) for key, has in written.has.items()
    }


def test_several_attributes_of_celeba_make_a_class_each(tmp_path: Path) -> None:
    written = write_celeba(tmp_path)
    hair = ("Black_Hair", "Blond_Hair", "Brown_Hair")
    source = CelebA(tmp_path, labels=hair)
    assert source.classes == 3
    kept = source.keys("a")
    assert {source.label(key) for key in kept} == {0, 1, 2}
    for key, has in written.has.items():
        alone = sum(has[name] for name in hair) == 1
        assert (key in kept) == alone
        if alone:
            assert has[hair[source.label(key)]]
        else:
            with pytest.raises(
                ValueError, match="not exactly one of the attributes Black_Hair, Blond_Hair, Brown_Hair"
            ):
                source.label(key)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"where": {"male": False}}, "where: CelebA has no attribute 'male'; did you mean 'Male'? known are: 5_o_"),
        ({"labels": ("Smile",)}, "labels: CelebA has no attribute 'Smile'"),
        ({"labels": ("Smiling", "Smiling")}, "labels lists ['Smiling', 'Smiling']; list each attribute once"),
    ],
)
def test_options_that_celeba_does_not_know(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011  (the message is compared)
        CelebA(Path("nowhere"), **options)
    assert str(refused.value).startswith(said)


def test_a_filter_that_leaves_nothing_is_repeated(tmp_path: Path) -> None:
    write_celeba(tmp_path, count=3)
    everything = dict.fromkeys(ATTRIBUTES, True)
    said = refusal(lambda: CelebA(tmp_path, where=everything).keys("b"))
    assert said.startswith("data.b: none of CelebA's 3 images fits {'where': {'5_o_Clock_Shadow': True, ")


DAMAGE: dict[str, tuple[str, Callable[[str], str], str]] = {
    "a value": (
        "list_attr_celeba",
        lambda text: text.replace("000002.jpg", "000002.jpg 0", 1),
        ", line 4: expected 40 values, 1 or -1, got",
    ),
    "a row is missing": (
        "list_attr_celeba",
        lambda text: text.rstrip().rpartition("\n")[0],
        ": expected 6 images, as its first line says, got 5",
    ),
    "no header": (
        "list_attr_celeba",
        lambda text: "\n".join(text.split("\n")[2:]),
        ": expected the 40 attributes of CelebA, got '000002.jpg",
    ),
    "empty": ("list_attr_celeba", lambda text: "", ": expected the 40 attributes of CelebA, got ''"),
    "a part": (
        "list_eval_partition",
        lambda text: text.replace("000003.jpg 2", "000003.jpg 3"),
        ", line 3: expected an image and 0, 1 or 2, got '000003.jpg 3'",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_list_of_celeba_is_named_with_the_line(tmp_path: Path, damage: str) -> None:
    name, damaged, said = DAMAGE[damage]
    write_celeba(tmp_path, count=6)
    path = tmp_path / f"{name}.txt"
    path.write_text(damaged(path.read_text()))
    assert refusal(lambda: CelebA(tmp_path, split="train").keys("a")).startswith(f"{path}{said}")


def test_lines_may_end_as_on_windows(tmp_path: Path) -> None:
    written = write_celeba(tmp_path)
    for path in tmp_path.glob("*.txt"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    expected = [key for key, part in written.part.items() if part == "valid" and not written.has[key]["Male"]]
    assert CelebA(tmp_path, where={"Male": False}, split="valid").keys("a") == expected


def test_a_part_of_celeba_is_drawn_after_the_filter(tmp_path: Path) -> None:
    write_celeba(tmp_path)
    women = CelebA(tmp_path, where={"Male": False}).keys("a")
    some = [CelebA(tmp_path, where={"Male": False}, limit=5, seed=seed).keys("a") for seed in (0, 0, 1)]
    assert some[0] == some[1] == sorted(some[0]) != some[2]
    assert all(len(set(keys)) == 5 and set(keys) < set(women) for keys in some)


# -- Danbooru Faces ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tree", [True, False])
def test_both_forms_of_danbooru_faces(tmp_path: Path, tree: bool) -> None:
    written = write_danbooru(tmp_path, tree)
    (tmp_path / "README.txt").write_text("about the set")
    Image.new("RGB", (4, 4)).save(tmp_path / "preview.png")
    source = DanbooruFaces(tmp_path)
    assert source.keys("b") == written
    for key in written:
        assert source.attributes(key) == ({"artist": key.split("/")[0]} if tree else {})
        np.testing.assert_array_equal(source.image(key, 256), pixels(tmp_path / key))
    some = [DanbooruFaces(tmp_path, limit=5, seed=seed).keys("b") for seed in (0, 0, 1)]
    assert some[0] == some[1] == sorted(some[0]) != some[2]
    assert all(len(set(keys)) == 5 and set(keys) < set(written) for keys in some)
    assert DanbooruFaces(tmp_path, limit=12).keys("b") == DanbooruFaces(tmp_path, limit=13).keys("b") == written


# -- IMDB-WIKI --------------------------------------------------------------------------------------------------

AGES = {
    "a woman": 30,
    "a man": 59,
    "two faces": 30,
    "the day after": 29,
    "gender unknown": 25,
    "no name": 25,
    "beyond": 30,
    "partly beyond": 30,
}
"""{who: the full years on 1 July of the year of the picture}."""


@pytest.fixture
def wiki(tmp_path: Path) -> dict[str, str]:
    """{key: who it is} of an IMDB-WIKI below `tmp_path`."""
    paths = write_imdb_wiki(tmp_path, "wiki", [*PEOPLE.values()])
    return dict(zip(paths, PEOPLE, strict=True))


def kept(wiki: dict[str, str], root: Path, **options: Any) -> set[str]:
    return {wiki[key] for key in IMDBWiki("wiki", root, **options).keys("a")}


def test_ages_are_those_of_the_calendar(tmp_path: Path, wiki: dict[str, str]) -> None:
    source = IMDBWiki("wiki", tmp_path)
    keys = source.keys("a")
    assert keys == [key for key, who in wiki.items() if who not in FACELESS]
    for key in keys:
        who = wiki[key]
        gender = {0.0: {"gender": "female"}, 1.0: {"gender": "male"}}.get(PEOPLE[who].gender, {})
        age = {"age": str(AGES[who])} if who in AGES else {}
        assert source.attributes(key) == age | gender, who


def test_ages_are_within_a_year_of_the_authors_formula() -> None:
    """[age, ~] = datevec(datenum(photo_taken, 7, 1) - dob): the year of a difference in days, read as a date."""
    random = np.random.default_rng(0)
    for _ in range(200):
        born = date.fromordinal(int(random.integers(date(1900, 1, 1).toordinal(), date(1999, 1, 1).toordinal())))
        taken = born.year + int(random.integers(1, 80))
        days = date(taken, 7, 1).toordinal() - born.toordinal()
        authors = date.fromordinal(days - 366).year if days > 366 else 0
        (ours,) = ages(np.array([born.toordinal() + 366.0]), np.array([taken], np.uint16)).tolist()
        assert ours - authors in (0, 1)
        assert ours == taken - born.year - ((born.month, born.day) > (7, 1))


FILTERS: list[tuple[dict[str, Any], Callable[[str, Person], bool]]] = [
    ({"age": (25, 29)}, lambda who, person: 25 <= AGES.get(who, -1) <= 29),
    ({"age": (0, 200)}, lambda who, person: who in AGES),
    ({"gender": "female"}, lambda who, person: person.gender == 0),
    ({"gender": "male"}, lambda who, person: person.gender == 1),
    ({"min_face_score": 2.5}, lambda who, person: person.score >= 2.5),
    ({"max_second_face_score": 2.0}, lambda who, person: not person.second_score > 2),
    ({"max_second_face_score": 0.0}, lambda who, person: math.isnan(person.second_score)),
    ({"min_face_size": 20}, lambda who, person: True),
    # a box from 31 to 50 is 20 pixels wide
    ({"min_face_size": 21}, lambda who, person: who in ("gender unknown", "beyond", "partly beyond")),
    (
        {"age": (18, 40), "gender": "female", "min_face_score": 3.0, "max_second_face_score": 1.0},
        lambda who, person: who in ("a woman", "beyond"),
    ),
]


@pytest.mark.parametrize(("options", "fits"), FILTERS)
def test_imdb_wiki_is_filtered(
    tmp_path: Path, wiki: dict[str, str], options: dict[str, Any], fits: Callable[[str, Person], bool]
) -> None:
    expected = {who for who, person in PEOPLE.items() if who not in FACELESS and fits(who, person)}
    assert expected
    assert kept(wiki, tmp_path, **options) == expected


def test_faces_are_cut_out_with_a_margin(tmp_path: Path, wiki: dict[str, str]) -> None:
    keys = {who: key for key, who in wiki.items()}

    def image(who: str, margin: float, size: int) -> faces.Array:
        return IMDBWiki("wiki", tmp_path, margin=margin).image(keys[who], size)

    def whole(who: str) -> faces.Array:
        return pixels(tmp_path / "wiki" / keys[who])

    # columns 30 to 49 and rows 20 to 39 from 0, and 8 more on each side
    np.testing.assert_array_equal(image("a woman", 0.4, 36), whole("a woman")[12:48, 22:58])
    np.testing.assert_array_equal(image("a woman", 0, 20), whole("a woman")[20:40, 30:50])
    # 20 wide and 24 high: a square of the longer side about the same centre
    np.testing.assert_array_equal(image("a man", 0, 24), whole("a man")[20:44, 28:52])
    # 31 wide and 30 high, moved from 79 and -10.5 to what the picture has
    np.testing.assert_array_equal(image("partly beyond", 0, 31), whole("partly beyond")[0:31, 65:96])
    # larger than the picture: its height, as far right as the face is
    np.testing.assert_array_equal(image("partly beyond", 10, 80), whole("partly beyond")[:, 16:96])
    with pytest.raises(
        ValueError, match=r"^the face's box \[199\.0, 20\.0, 220\.0, 41\.0\] lies outside the picture of 96x80"
    ):
        image("beyond", 0.4, 16)


def test_a_face_outside_of_its_picture_is_left_out_and_named(tmp_path: Path, wiki: dict[str, str]) -> None:
    spec = ganlab.load_spec(spec_of({"type": "imdb_wiki", "part": "wiki", "path": str(tmp_path)}))
    loaded = build_data(spec)["a"]
    assert [text.split(":")[0] for text in loaded.skipped] == [key for key, who in wiki.items() if who == "beyond"]
    assert {wiki[key] for key in loaded.keys} == PEOPLE.keys() - FACELESS - {"beyond"}


def spec_of(a: dict[str, Any], b: dict[str, Any] | None = None) -> dict[str, Any]:
    return {**TINY, "data": {**TINY["data"], "a": a, "b": b or a}}


def test_what_the_authors_have_cropped_is_not_cropped_again(tmp_path: Path) -> None:
    (key,) = write_imdb_wiki(tmp_path, "imdb_crop", [PEOPLE["a woman"]])
    source = IMDBWiki("imdb_crop", tmp_path)
    np.testing.assert_array_equal(source.image(key, 80), pixels(tmp_path / "imdb_crop" / key)[:, 8:88])
    with pytest.raises(ValueError, match=r"^margin is 0\.2, and 'imdb_crop' is cropped already; 'imdb' has the whole"):
        IMDBWiki("imdb_crop", tmp_path, margin=0.2)


def test_a_path_that_is_repeated_is_one_image(tmp_path: Path) -> None:
    twice = [
        PEOPLE["a woman"]._replace(path="00/one.jpg"),
        PEOPLE["a man"]._replace(path="00/one.jpg"),
        PEOPLE["no name"],
    ]
    write_imdb_wiki(tmp_path, "wiki", twice)
    source = IMDBWiki("wiki", tmp_path)
    assert source.keys("a") == ["00/one.jpg", "02/2_2015.jpg"]
    assert source.attributes("00/one.jpg") == {"age": "30", "gender": "female"}


def test_options_of_imdb_wiki_that_fit_nothing(tmp_path: Path, wiki: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"^age is \[40, 30\]; the first must not be above the second"):
        IMDBWiki("wiki", tmp_path, age=(40, 30))
    said = refusal(lambda: IMDBWiki("wiki", tmp_path, age=(90, 99)).keys("b"))
    assert said == "data.b: none of the 17 images of wiki fits the options"


@pytest.mark.parametrize("content", [b"", b"no metadata", b"MATLAB 5.0 MAT-file".ljust(128)])
def test_damaged_metadata_are_one_sentence(tmp_path: Path, wiki: dict[str, str], content: bytes) -> None:
    file = tmp_path / "wiki" / "wiki.mat"
    file.write_bytes(content)
    assert refusal(lambda: IMDBWiki("wiki", tmp_path).keys("a")).startswith(f"{file} can't be read (")


# -- all three --------------------------------------------------------------------------------------------------

WHERE = "or set the option `path` to the folder that holds them"
MISSING = {
    "celeba": (
        CelebA,
        {},
        "list_attr_celeba.txt",
        "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html has CelebA, for non-commercial research only; put"
        " img_align_celeba, unpacked, list_attr_celeba.txt and list_eval_partition.txt there",
    ),
    "danbooru_faces": (
        DanbooruFaces,
        {},
        "JPEG files",
        "https://gist.github.com/stormraiser/a8066517b0b60a50c701ee9c8f720691 has Danbooru Faces, drawings that belong"
        " to their artists and for which no licence is known; put its JPEG files there, in folders or not",
    ),
    "imdb_wiki": (
        IMDBWiki,
        {"part": "imdb"},
        "imdb/imdb.mat",
        "https://data.vision.ee.ethz.ch/cvl/rrothe/imdb-wiki/ has imdb_meta.tar and imdb_0.tar to imdb_9.tar, for"
        " academic research only; unpack them there",
    ),
}


@pytest.mark.parametrize("name", MISSING)
def test_without_the_data_one_sentence_says_where_to_get_them(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cls, options, what, get = MISSING[name]
    monkeypatch.setenv("GANLAB_DATA", str(tmp_path))
    expected = f"the source {name!r} finds no {what} in {tmp_path / name}: {get}, {WHERE}"
    assert refusal(lambda: check(spec_of({"type": name, **options}))) == expected
    # without data, a source still has its shape: a trained run needs no more
    source = cls(**options)
    assert (source.channels, source.classes) == (3, 0)
    assert "only" in source.credits() or "no licence is known" in source.credits()
    elsewhere = cls(path=tmp_path / "other", **options)
    assert refusal(lambda: elsewhere.keys("a")) == expected.replace(str(tmp_path / name), str(tmp_path / "other"))


def test_each_file_of_celeba_that_is_missing_is_named(tmp_path: Path) -> None:
    written = write_celeba(tmp_path, count=2)
    (tmp_path / "list_eval_partition.txt").unlink()
    assert "finds no list_eval_partition.txt" in refusal(lambda: CelebA(tmp_path, split="train").keys("a"))
    assert len(CelebA(tmp_path).keys("a")) == 2
    written.pictures.rename(tmp_path / "elsewhere")
    assert "finds no img_align_celeba" in refusal(lambda: CelebA(tmp_path).image("000001.jpg", 16))


def test_attributes_and_labels_reach_metrics(tmp_path: Path) -> None:
    written = write_celeba(tmp_path / "celeba")
    write_danbooru(tmp_path / "flat", tree=False)
    sources = [
        {"type": "celeba", "path": str(tmp_path / "celeba"), "labels": ["Smiling"]},
        {"type": "danbooru_faces", "path": str(tmp_path / "flat")},
    ]
    found = every_image(build_data(ganlab.load_spec(spec_of(*sources))))
    smiling = [has["Smiling"] for has in written.has.values()]
    assert Shared(attribute="Smiling").of(found["a"]) == ["true" if each else "false" for each in smiling]
    assert Shared(attribute="label").of(found["a"]) == ["1" if each else "0" for each in smiling]
    # so that a metric says before the training that it will have none
    assert found["b"].attributes is None
