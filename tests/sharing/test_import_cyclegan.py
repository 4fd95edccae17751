"""`ganlab import cyclegan`, with checkpoints of networks built from the published layer names in plain PyTorch."""

from __future__ import annotations

import json
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ganlab_resnet.generator import Resnet
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, pad
from typer.testing import CliRunner

import ganlab
from ganlab import SpecError
from ganlab.cli.commands import app
from helpers.generators import strengthen
from helpers.pictures import colourful

# one process imports plugins and libraries for all of them
pytestmark = pytest.mark.xdist_group("import")

SIZE = 16
State = dict[str, Tensor]


class Down(nn.Module):
    """The published blur of stride 2; its filter is a buffer."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        row = torch.tensor([1.0, 2.0, 1.0])
        self.register_buffer("filt", (row[:, None] * row / 16).expand(channels, 1, 3, 3).clone())

    def forward(self, x: Tensor) -> Tensor:
        return conv2d(pad(x, (1, 1, 1, 1), mode="reflect"), self.filt, stride=2, groups=len(self.filt))


class Up(nn.Module):
    """The published upsampling: a transposed convolution with a fixed filter, of which the border is cut off."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        row = torch.tensor([1.0, 3.0, 3.0, 1.0])
        self.register_buffer("filt", (row[:, None] * row / 16).expand(channels, 1, 4, 4).clone())

    def forward(self, x: Tensor) -> Tensor:
        padded = pad(x, (1, 1, 1, 1), mode="replicate")
        larger = conv_transpose2d(padded, self.filt, stride=2, padding=2, groups=len(self.filt))
        return larger[:, :, 1:-1, 1:-1]


class Block(nn.Module):
    def __init__(self, channels: int, normed: Callable[[nn.Module, int], list[nn.Module]]) -> None:
        super().__init__()

        def half() -> list[nn.Module]:
            return [nn.ReflectionPad2d(1), *normed(nn.Conv2d(channels, channels, 3, bias=True), channels)]

        self.conv_block = nn.Sequential(*half(), nn.ReLU(), *half())

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.conv_block(x)
        return result


class Published(nn.Module):
    """The published generator."""

    def __init__(
        self,
        blocks: int = 6,
        norm: str = "instance",
        down: bool = False,
        up: bool = False,
        width: int = 2,
        channels: tuple[int, int] = (3, 3),
    ) -> None:
        super().__init__()

        def normed(convolution: nn.Module, count: int) -> list[nn.Module]:
            if norm == "batch":
                convolution.bias = None
                return [convolution, nn.BatchNorm2d(count)]
            return [convolution, nn.InstanceNorm2d(count)]

        layers = [nn.ReflectionPad2d(3), *normed(nn.Conv2d(channels[0], width, 7), width), nn.ReLU()]
        for c in (width, 2 * width):
            layers += [*normed(nn.Conv2d(c, 2 * c, 3, 1 if down else 2, 1), 2 * c), nn.ReLU()]
            layers += [Down(2 * c)] if down else []
        layers += [Block(4 * width, normed) for _ in range(blocks)]
        for c in (4 * width, 2 * width):
            if up:
                layers += [Up(c), *normed(nn.Conv2d(c, c // 2, 3, 1, 1), c // 2), nn.ReLU()]
            else:
                layers += [*normed(nn.ConvTranspose2d(c, c // 2, 3, 2, 1, output_padding=1), c // 2), nn.ReLU()]
        self.model = nn.Sequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(width, channels[1], 7), nn.Tanh())
        strengthen(self)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        result: Tensor = self.model(images)
        return result


def published(seed: int = 0, **options: Any) -> Published:
    torch.manual_seed(seed)
    return Published(**options)


def check(run: ganlab.Run, direction: str, network: nn.Module, channels: int = 3) -> None:
    """The imported generator gives the network's outputs, up to float32 rounding."""
    images = torch.rand(2, channels, 24, 20, generator=torch.manual_seed(5)) * 2 - 1
    with torch.no_grad():
        expected, found = network(images), run.generator(direction)(images)
        # the same network twice as exact shows how much rounding there is
        exact = network.double()(images.double())
        network.float()
    assert expected.std() > 0.05
    rounding = float((expected - exact).abs().max())
    assert float((found - exact).abs().max()) <= 4 * rounding + 1e-6


@pytest.mark.parametrize(
    "options",
    [
        {"blocks": 9},
        {"blocks": 6, "norm": "batch"},
        {"blocks": 6, "down": True, "up": True},
        {"blocks": 9, "norm": "batch", "down": True, "up": True},
        {"blocks": 6, "down": True},
        {"blocks": 6, "up": True, "channels": (1, 3), "width": 3},
    ],
    ids=str,
)
def test_the_generator_computes_what_the_published_one_does(options: dict[str, Any], tmp_path: Path) -> None:
    network = published(**options)
    torch.save(network.state_dict(), tmp_path / "latest_net_G.pth")
    run = ganlab.import_cyclegan([tmp_path / "latest_net_G.pth"], tmp_path / "run", size=SIZE)
    check(run, "ab", network, options.get("channels", (3, 3))[0])
    assert run.spec.directions == ("ab",)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert sum(parameter.numel() for parameter in run.generator("ab").parameters()) == count


def parallel(state: State) -> State:
    return {f"module.{key}": value for key, value in state.items()}


def old(state: State) -> State:
    """As PyTorch before 0.4 saved instance norms, with statistics that its eval mode did not use."""
    added = dict(state)
    for key, value in state.items():
        layer, _, name = key.rpartition(".")
        if name == "bias" and f"{layer}.weight" in state and layer != "model.23":
            start, _, number = layer.rpartition(".")
            norm = f"{start}.{int(number) + 1}"
            added |= {f"{norm}.running_mean": torch.ones(len(value)), f"{norm}.running_var": torch.ones(len(value)) * 9}
    return added


def tracked(state: State) -> State:
    return {
        **old(state),
        **{
            key.replace("running_mean", "num_batches_tracked"): torch.tensor(7)
            for key in old(state)
            if key.endswith("mean")
        },
    }


@pytest.mark.parametrize("change", [parallel, old, tracked])
def test_other_forms_of_the_same_weights(change: Callable[[State], State], tmp_path: Path) -> None:
    network = published()
    state = change(network.state_dict())
    assert set(state) != set(network.state_dict())
    torch.save(state, tmp_path / "one.pth", _use_new_zipfile_serialization=change is not old)
    check(ganlab.import_cyclegan([tmp_path / "one.pth"], tmp_path / "run", size=SIZE), "ab", network)


def test_batch_norms_of_old_files_count_no_batches(tmp_path: Path) -> None:
    network = published(norm="batch")
    state = {key: value for key, value in network.state_dict().items() if not key.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "one.pth")
    check(ganlab.import_cyclegan([tmp_path / "one.pth"], tmp_path / "run", size=SIZE), "ab", network)


# -- as a run ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of both directions, imported from a folder by the command."""
    folder = tmp_path_factory.mktemp("import")
    for seed, name in enumerate("AB"):
        torch.save(published(seed).state_dict(), folder / f"latest_net_G_{name}.pth")
    # a discriminator lies beside them
    torch.save({"model.0.weight": torch.zeros(1)}, folder / "latest_net_D_A.pth")
    words = ["import", "cyclegan", str(folder), "--out", str(folder / "run"), "--size", str(SIZE)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == [
        f"imported: ab and ba, in {folder / 'run'}",
        f"  use it       ganlab translate {folder / 'run'} PICTURES --to b",
        f"  measure it   ganlab eval {folder / 'run'} --inputs PICTURES --images REAL",
    ]
    return folder / "run"


def test_the_names_of_the_files_tell_the_directions(imported: Path) -> None:
    run = ganlab.load_run(imported)
    check(run, "ab", published(0))
    check(run, "ba", published(1))


def test_it_translates_and_exports(imported: Path, tmp_path: Path) -> None:
    colourful(30, 20).save(tmp_path / "me.png")
    found = ganlab.translate(imported, [tmp_path / "me.png"], to="b", out=tmp_path / "out", size="keep", cycle=True)
    with Image.open(found["pictures"][0]["output"]) as output:
        assert output.size == (30, 20)
    text = (imported / "README.md").read_text("utf-8")
    for name in ("latest_net_G_A.pth", "latest_net_G_B.pth"):
        assert f"- `{name}` of pytorch-CycleGAN-and-pix2pix or CUT, SHA-256 `" in text
    assert "ganlab did not train these weights and knows nothing of their training." in text
    assert "The images of the training are not known here" in text
    assert "- Pictures are resized to 16 x 16 pixels. The generators take heights and widths that are multiples" in text
    assert "| ab | a to b | resnet |" in text
    assert "lsgan" not in text
    ganlab.export(imported, tmp_path / "again")
    for name in ("ab.safetensors", "ba.safetensors", "README.md"):
        assert (tmp_path / "again" / name).read_bytes() == (imported / name).read_bytes()


def test_eval_measures_its_translations_against_real_images(imported: Path, tmp_path: Path, trial: None) -> None:
    random = np.random.default_rng(0)
    for name, count in (("inputs", 12), ("real", 16)):
        (tmp_path / name).mkdir()
        for number in range(count):
            pixels = random.integers(0, 256, (20, 24, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{number:02}.png")
    words = ["eval", str(imported), "--inputs", str(tmp_path / "inputs"), "--images", str(tmp_path / "real")]
    asked = ["--kid", "--metric", "brightness", "--features", "averages"]
    done = CliRunner().invoke(app, [*words, *asked, "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    # by hand: two folders of pictures, as the generator reads and writes them
    ganlab.translate(imported, [tmp_path / "inputs"], to="b", out=tmp_path / "by hand/translated")
    for name in ("inputs", "real"):
        (tmp_path / "by hand" / name).mkdir()
        for path in sorted((tmp_path / name).iterdir()):
            with Image.open(path) as image:
                square = ImageOps.fit(image, (SIZE, SIZE), Image.Resampling.BICUBIC)
                square.save(tmp_path / "by hand" / name / path.name)
    by_hand = ganlab.evaluate(
        metrics=["kid", "brightness"],
        features="averages",
        images=(tmp_path / "by hand/translated", tmp_path / "by hand/real"),
        inputs=tmp_path / "by hand/inputs",
    )
    assert [result["direction"] for result in found["results"]] == ["ab", "ab"]
    assert [{**result, "direction": ""} for result in found["results"]] == by_hand["results"]
    assert set(found["protocol"]["networks"]) == {"ab.safetensors", "ba.safetensors"}
    back = CliRunner().invoke(app, [*words, *asked, "--to", "a", "--json"])
    assert {result["direction"] for result in json.loads(back.stdout)["results"]} == {"ba"}
    assert not (imported / "evaluation.json").exists()


def test_eval_says_at_once_that_a_generator_fails(
    imported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trial: None
) -> None:
    def scarce(self: Resnet, images: Tensor) -> Tensor:
        raise RuntimeError("not enough memory")

    for number in range(2):
        colourful(20, 24 + number).save(tmp_path / f"{number}.png")
    monkeypatch.setattr(Resnet, "encode", scarce)
    words = ["eval", str(imported), "--inputs", str(tmp_path), "--images", str(tmp_path), "--metric", "brightness"]
    done = CliRunner().invoke(app, words)
    why = "the generator fails at 16 x 16 pixels: not enough memory"
    assert (done.exit_code, done.stderr.splitlines()[-1]) == (1, f"ganlab: {tmp_path} can't be translated: {why}")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["RUN", "--images", "x"], "--images x: needs --inputs, the pictures that RUN translates"),
        (["--images", "x"], "--images x: needs a run that translates --inputs, or a second folder"),
        (["RUN", "--to", "a"], "--to a: goes with a run and --images"),
        (
            ["RUN", "--images", "x", "--inputs", "y", "--to", "c"],
            "to: 'c' is not allowed: this run translates to a and",
        ),
        (["RUN", "--images", "x", "--inputs", "y", "--kid"], "y does not exist"),
        (["--images", "x", "y", "--images", "z"], "--images names 3 folders; at most two are allowed"),
    ],
)
def test_what_eval_refuses(imported: Path, words: list[str], sentence: str) -> None:
    run = str(imported)
    done = CliRunner().invoke(app, ["eval", *(run if word == "RUN" else word for word in words)])
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith(f"ganlab: {sentence.replace('RUN', run)}")


# -- what is refused --------------------------------------------------------------------------------------------------


def without(key: str) -> Callable[[State], object]:
    return lambda state: {name: value for name, value in state.items() if name != key}


def with_(key: str, value: object) -> Callable[[State], object]:
    return lambda state: {**state, key: value}


REFUSED: list[tuple[Callable[[State], object], str]] = [
    (without("model.1.weight"), "the key 'model.1.weight' is missing; it is no generator resnet_6blocks or resnet_9b"),
    (without("model.1.bias"), "the key 'model.1.bias' is missing; its first key is 'model.1.weight'"),
    (without("model.12.conv_block.5.bias"), "the key 'model.12.conv_block.5.bias' is missing"),
    (without("model.10.conv_block.1.weight"), "the key 'model.10.conv_block.1.weight' is missing"),
    # dropout between the convolutions of a block gives the second another number
    (
        with_("model.10.conv_block.6.weight", torch.zeros(8, 8, 3, 3)),
        "the key 'model.10.conv_block.6.weight' is of no ",
    ),
    (
        with_("model.4.weight", torch.zeros(4, 2, 5, 5)),
        "model.4.weight has the shape (4, 2, 5, 5); expected (4, 2, 3, 3)",
    ),
    (with_("model.1.weight", torch.zeros(2, 3, 3, 3)), "model.1.weight has the shape (2, 3, 3, 3); expected that of a"),
    (with_("model.1.weight", torch.zeros(2, 4, 7, 7)), "images of a have 4 channels; allowed are 1 and 3"),
    (with_("model.7.bias", torch.full((8,), float("nan"))), "model.7.bias is not finite"),
    (
        with_("model.7.bias", torch.zeros(8, dtype=torch.int64)),
        "model.7.bias is of the type torch.int64; expected torch",
    ),
    (with_("model.7.bias", torch.zeros(8, device="meta")), "'model.7.bias' is no plain tensor of numbers"),
    (with_("model.7.bias", torch.zeros(8, dtype=torch.complex64)), "'model.7.bias' is no plain tensor of numbers: t"),
    # a terabyte in a few bytes
    (with_("model.7.filt", torch.zeros(1).expand(10**11, 1, 3, 3)), "'model.7.filt' is no plain tensor of numbers"),
    (with_("epoch", 3), "'epoch' is a int; a checkpoint is a dict of tensors"),
    (lambda state: list(state.values()), "holds a list; a checkpoint is a dict of tensors"),
    (lambda state: {}, "holds a dict; a checkpoint is a dict of tensors"),
]


@pytest.mark.parametrize(("change", "sentence"), REFUSED, ids=[sentence[:50] for _, sentence in REFUSED])
def test_a_checkpoint_of_something_else_is_one_sentence(
    change: Callable[[State], object], sentence: str, tmp_path: Path
) -> None:
    path = tmp_path / "one.pth"
    torch.save(change(published().state_dict()), path)
    with pytest.raises(SpecError) as raised:
        ganlab.import_cyclegan([path], tmp_path / "run", size=SIZE)
    assert str(raised.value).startswith(str(path))
    assert str(raised.value).removeprefix(str(path)).lstrip(": ").startswith(sentence)
    assert not (tmp_path / "run").exists()


def test_another_blur_is_refused(tmp_path: Path) -> None:
    state = published(down=True, up=True).state_dict()
    state["model.7.filt"] = torch.full((4, 1, 3, 3), 1 / 9)
    torch.save(state, tmp_path / "one.pth")
    with pytest.raises(SpecError, match=re.escape("model.7.filt is another filter than (1, 2, 1) in both directions")):
        ganlab.import_cyclegan([tmp_path / "one.pth"], tmp_path / "run", size=SIZE)


class Hostile:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("kind", ["torch", "pickle", "text", "cut"])
def test_no_code_of_a_file_is_run(kind: str, tmp_path: Path) -> None:
    path, mark = tmp_path / "one.pth", tmp_path / "mark"
    state = {**published().state_dict(), "model.1.weight": Hostile(mark)}
    if kind == "pickle":
        path.write_bytes(pickle.dumps(state))
    elif kind == "text":
        path.write_text("no checkpoint")
    else:
        torch.save(state if kind == "torch" else published().state_dict(), path)
    if kind == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    done = CliRunner().invoke(app, ["import", "cyclegan", str(path), "--out", str(tmp_path / "run")])
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        f"ganlab: {path} can't be read: it is damaged, or holds more than tensors and plain values, which could run"
        " code"
    ]
    assert not mark.exists()
    assert not (tmp_path / "run").exists()


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    torch.save(published().state_dict(), tmp_path / "latest_net_G_A.pth")
    torch.save(published(blocks=9).state_dict(), tmp_path / "latest_net_G_B.pth")
    torch.save(published().state_dict(), tmp_path / "other.pth")
    files = {name: tmp_path / name for name in ("latest_net_G_A.pth", "latest_net_G_B.pth", "other.pth")}
    for paths, sentence in (
        ([tmp_path], "are of two architectures; import each into a folder of its own"),
        (
            [files["latest_net_G_A.pth"], files["other.pth"]],
            "are both taken for the direction ab; the names of two files",
        ),
        ([tmp_path / "absent.pth"], "absent.pth does not exist"),
        ([], "import cyclegan: names no file"),
    ):
        with pytest.raises(SpecError, match=sentence):
            ganlab.import_cyclegan(paths, tmp_path / "run", size=SIZE)
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        SpecError, match=r"holds none of latest_net_G_A\.pth, latest_net_G_B\.pth and latest_net_G\.pth"
    ):
        ganlab.import_cyclegan([tmp_path / "empty"], tmp_path / "run")
    done = CliRunner().invoke(app, ["import", "cyclegn", str(tmp_path), "--out", str(tmp_path / "run")])
    assert done.stderr == "ganlab: import: 'cyclegn' is not known; did you mean 'cyclegan'? known are: cyclegan\n"
