"""A page in the browser that translates pictures with trained runs. It needs the extra `ganlab[demo]`."""

from __future__ import annotations

import math
import os
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import gradio as gr
import uvicorn
from fastapi import FastAPI

from ganlab.errors import GanlabError, SpecError, text_of
from ganlab.inference.run import load_run, translator_of
from ganlab.inference.translator import SIZES

DIRECTIONS = {"b": "a to b", "a": "b to a"}
"""{the domain to translate into: the direction's name in the page}."""

SIZE_NAMES = dict(zip(SIZES, ("the centred square, as trained", "the whole picture, at its own size"), strict=True))
"""{size: its name in the page}."""

STYLE = ".picture img {width: 100%; height: 100%; object-fit: contain}"
"""Small pictures are enlarged."""

FONTS = ("system-ui", "sans-serif"), ("ui-monospace", "monospace")
"""Fonts of the machine; Gradio's own come from the network."""


class _Shown:
    """A run, and the part of the page that shows its translations."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.reload()

    def reload(self) -> None:
        """Reads the run and its last checkpoint. Raises SpecError or RunError if there is none."""
        self._run = load_run(self.folder)
        translator_of(self._run)

    @property
    def to(self) -> str:
        """The domain that the run translates into first."""
        return self._run.spec.directions[0][1]

    def draw(self) -> None:
        """Adds the run to the page."""
        with gr.Column(min_width=240):
            self.said = gr.Textbox(self._run.spec.about, label=str(self.folder), interactive=False, lines=2)
            self.step = gr.Slider(**self._steps(), label="checkpoint", interactive=True)
            # without Gradio's button that uploads the picture
            options = {"interactive": False, "format": "png", "buttons": ["download", "fullscreen"]}
            self.output, self.back = (
                gr.Image(label=label, height=320, elem_classes="picture", **options)
                for label in ("translation", "translated back")
            )

    def _steps(self) -> dict[str, Any]:
        """Returns the options of the slider, whose values include the step of every checkpoint."""
        steps = self._run.checkpoints or [self._run.step]
        apart = math.gcd(*(step - steps[0] for step in steps)) or 1
        return {
            "minimum": steps[0],
            # Gradio refuses a slider with one value, also one that is not shown
            "maximum": max(steps[-1], steps[0] + 1),
            "step": apart,
            "value": steps[-1],
            "visible": len(steps) > 1,
        }

    def reloaded(self) -> Any:
        """Returns the slider for the checkpoints that are there now."""
        try:
            self.reload()
        except GanlabError as error:
            return gr.skip(), text_of(error)
        return gr.Slider(**self._steps()), self._run.spec.about

    def translated(self, photo: dict[str, Any] | None, to: str, size: str, step: int) -> tuple[Any, Any, str]:
        """Returns (translation, translation back, sentence) of an uploaded file by the checkpoint nearest to `step`."""
        if photo is None:
            return None, None, self._run.spec.about
        try:
            nearest = min(self._run.checkpoints, key=lambda there: abs(there - step), default="last")
            translator = translator_of(self._run, nearest)
            direction = translator.direction(to)
            back = direction[::-1] in self._run.spec.directions
            for each in (direction, direction[::-1]) if back else (direction,):
                translator.check_size(each, size)
            found = translator.pictures(direction, photo["path"], size, back)
        # a picture that can't be read is a ValueError
        except (GanlabError, ValueError) as error:
            name = photo.get("orig_name") or "the picture"
            return None, None, f"{name} can't be translated: {text_of(error)}"
        pixels = f"{found.output.width} x {found.output.height} pixels"
        return found.output, found.back, f"step {translator.step}, {pixels}"


def page(folders: Sequence[str | Path]) -> gr.Blocks:
    """Returns the page for runs. Raises SpecError if a folder is no run or has no checkpoint."""
    shown = [_Shown(Path(folder)) for folder in folders]
    # one translation at a time: ganlab seeds torch's generators and sets its threads
    alone = {"concurrency_id": "translations", "concurrency_limit": 1}
    with gr.Blocks(title="ganlab", analytics_enabled=False) as blocks, gr.Row():
        with gr.Column(min_width=240):
            sources = ["upload", "webcam", "clipboard"]
            photo = gr.Image(label="picture", sources=sources, height=320, elem_classes="picture")
            to = gr.Radio([(name, to) for to, name in DIRECTIONS.items()], value=shown[0].to, label="direction")
            size = gr.Radio([(name, size) for size, name in SIZE_NAMES.items()], value=SIZES[0], label="size")
        for run in shown:
            run.draw()
            asked = [photo, to, size, run.step]
            gr.on(
                [each.change for each in asked],
                run.translated,
                asked,
                [run.output, run.back, run.said],
                # ganlab reads the file that was uploaded: more kinds than Gradio does, and as in training
                preprocess=False,
                # the slider may pass many positions while one is translated: only the last is translated next
                trigger_mode="always_last",
                **alone,
            )
            blocks.load(run.reloaded, None, [run.step, run.said], **alone)
    # as Blocks.launch does: until then Gradio lets a request name any file of the machine
    blocks.has_launched = True
    return blocks


def serve(
    folders: Sequence[str | Path], host: str = "127.0.0.1", port: int = 7860, ready: Callable[[str], object] = print
) -> None:
    """Serves the page until Ctrl-C. Nothing leaves the machine, and what was uploaded is removed at the end.

    Args:
        folders: Run folders.
        host: The address to listen at. With another than the default, other machines can use the page.
        port: The port; 0 takes any free one.
        ready: Receives the address of the page as soon as it can be opened.

    Raises SpecError if a folder is no run or has no checkpoint, or if the host or the port can't be used.
    """
    with _listening(host, port) as listening, _private_uploads():
        # not Blocks.launch, which asks the network whether the page is there, and can share it
        app = gr.mount_gradio_app(
            FastAPI(),
            page(folders),
            path="/",
            theme=gr.themes.Default(font=FONTS[0], font_mono=FONTS[1]),
            css=STYLE,
            footer_links=[],
            run_history=False,
            ssr_mode=False,
            mcp_server=False,
        )
        shown = f"[{host}]" if ":" in host else host
        ready(f"http://{shown}:{listening.getsockname()[1]}")
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1))
        with suppress(KeyboardInterrupt):
            server.run([listening])


def _listening(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        raise SpecError(f"the demo can't listen at {host}, port {port}: {text_of(error)}") from error


@contextmanager
def _private_uploads() -> Iterator[None]:
    """Lets Gradio keep its files in a folder of its own, which is removed."""
    name = "GRADIO_TEMP_DIR"
    before = os.environ.get(name)
    with tempfile.TemporaryDirectory(prefix="ganlab-demo-") as folder:
        os.environ[name] = folder
        try:
            yield
        finally:
            os.environ.pop(name) if before is None else os.environ.update({name: before})
