"""The notebook of docs/ runs in a kernel, and shows what a person there should see."""

from __future__ import annotations

import os
import re
from typing import Any

import pytest

from helpers.paths import DOCS, ROOT

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """{source of a code cell: the data of its outputs, {type: content}}"""
    notebook = nbformat.read(DOCS / "notebook.ipynb", as_version=4)
    nbformat.validate(notebook)
    folder = tmp_path_factory.mktemp("notebook")
    path = os.pathsep.join([str(ROOT), str(ROOT / "plugins"), os.environ.get("PYTHONPATH", "")])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", path)
        patch.setenv("GANLAB_CACHE", str(folder / "cache"))
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))
        client = nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(folder)}})
        client.execute()
    assert (folder / "runs/notebook/evaluation.json").is_file()
    return {
        cell.source: [output.get("data", {"stream": output.get("text", "")}) for output in cell.outputs]
        for cell in notebook.cells
        if cell.cell_type == "code"
    }


def test_a_run_shows_its_bar_its_warnings_and_the_last_grid(cells: dict[str, list[dict[str, Any]]]) -> None:
    page, grid = (shown["text/html"] for shown in cells["run = ganlab.run(spec)"])
    assert re.search(r'<progress value="20" max="20"', page)
    assert "notebook finished" in page
    assert "step 20: odd columns" in grid
    assert len(re.findall('<img src="data:image/png;base64,', grid)) == 1
    # it would be sent again with each change of a bar, until the notebook refuses so many bytes
    assert "<img" not in page


def test_a_run_has_a_page_of_its_own(cells: dict[str, list[dict[str, Any]]]) -> None:
    (shown,) = cells["run"]
    assert re.search("<b>notebook</b> <span>finished, step 20 of 20, in runs/notebook", shown["text/html"])
    assert re.search(r"<td>kid-lite0</td><td>ab</td><td>0\.\d+</td>", shown["text/html"])
    assert shown["text/plain"] == "<Run notebook: step 20 of 20, in runs/notebook>"


def test_the_last_cell_is_the_translated_picture(cells: dict[str, list[dict[str, Any]]]) -> None:
    (shown,) = list(cells.values())[-1]
    assert "image/png" in shown
    assert "size=32x32" in shown["text/plain"]


def test_it_is_kept_without_outputs() -> None:
    for cell in nbformat.read(DOCS / "notebook.ipynb", as_version=4).cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
