"""The tour through a search in a notebook, executed; and what it shows is saved with it.

``UNFREEZE_SAVE_NOTEBOOK=yes`` saves the outputs of this run in ``docs/tour.ipynb``.
"""

from __future__ import annotations

import getpass
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

pytestmark = pytest.mark.timeout(1800)  # two searches in one, on machines that do other things as well
TOUR = Path(__file__).parents[3] / "docs" / "tour.ipynb"
_LARGEST = 1_000_000
_VOLATILE = ("execution", "widgets")


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The notebook, run from top to bottom in an empty folder."""
    folder = tmp_path_factory.mktemp("a tour ü")
    notebook = nbformat.read(TOUR, as_version=4)
    for cell in code(notebook):
        cell.outputs, cell.execution_count = [], None
    NotebookClient(
        notebook, timeout=None, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    assert {path.name for path in folder.iterdir()} == {"tour-runs"}
    for cell in notebook.cells:
        for name in _VOLATILE:
            cell.metadata.pop(name, None)
    for cell in code(notebook):
        cell.outputs = [output for output in cell.outputs if not _is_native(output)]
    if os.environ.get("UNFREEZE_SAVE_NOTEBOOK"):
        nbformat.write(notebook, TOUR)
    return notebook


def _is_native(output: Any) -> bool:
    """Whether the output is from TensorFlow, whose C++ code logs at each import, whatever the log level."""
    lines = output.text.splitlines() if output.output_type == "stream" and output.name == "stderr" else [""]
    return all(re.match(r"WARNING: All log messages before absl|[IWE]\d{4} ", line) for line in lines)


def code(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shown(cell: Any) -> Iterator[tuple[str, str]]:
    """(MIME type, content) of everything that a cell shows."""
    for output in cell.outputs:
        if output.output_type == "stream":
            yield f"stream/{output.name}", output.text
        elif output.output_type == "error":
            yield "error", "\n".join(output.traceback)
        else:
            yield from ((kind, str(content)) for kind, content in output.data.items())


def found(notebook: Any, source: str, kind: str) -> str:
    """The output of MIME type ``kind`` of the one cell that contains ``source``."""
    (cell,) = [cell for cell in code(notebook) if source in cell.source]
    return "\n".join(content for k, content in shown(cell) if k == kind)


@pytest.mark.slow
def test_a_search_is_shown_while_it_runs_and_its_final_state_stays(executed: Any) -> None:
    (cell,) = [cell for cell in code(executed) if "run_search(config)" in cell.source]
    assert sorted(kind for kind, _ in shown(cell)) == [
        "text/html",
        "text/plain",
    ]  # one output, redrawn in place
    live = found(executed, "run_search(config)", "text/html")
    assert "<b>tour</b>: 10 of 10 trials" in live
    assert live.count("<svg") >= 8
    assert "★" in live


@pytest.mark.slow
def test_the_result_shows_the_winner_and_the_gain(executed: Any) -> None:
    (cell,) = [cell for cell in code(executed) if cell.source == "result"]
    html = "".join(content for kind, content in shown(cell) if kind == "text/html")
    words = re.sub("<[^>]+>", "", html)
    assert re.search(r"trial \d+ wins with \d\d\.\d % on test images", words)
    assert re.search(r"[+−]\d+\.\d points over training from scratch", words)
    assert html.count("<tr>") == 1 + 5


@pytest.mark.slow
def test_figures_are_images_and_the_champion_predicts(executed: Any) -> None:
    for key in ("history", "curves", "parallel", "landscape", "confusion"):
        assert len(found(executed, f'figure("{key}")', "image/png")) > 5_000
    assert "version 1 is the champion: " in found(executed, "promote(", "stream/stdout")
    assert len(found(executed, "champion.predict", "image/png")) > 2_000


@pytest.mark.slow
def test_the_saved_tour_shows_what_a_run_shows(executed: Any) -> None:
    saved = nbformat.read(TOUR, as_version=4)
    kinds = [sorted(kind for kind, _ in shown(cell)) for cell in code(saved)]
    assert kinds == [sorted(kind for kind, _ in shown(cell)) for cell in code(executed)]
    assert not any(kind in ("error", "stream/stderr") for cell in kinds for kind in cell)


def test_the_saved_tour_is_small_and_names_no_machine() -> None:
    assert TOUR.stat().st_size < _LARGEST
    saved = nbformat.read(TOUR, as_version=4)
    texts = [content for cell in code(saved) for kind, content in shown(cell) if kind != "image/png"]
    assert texts, "run the tests with UNFREEZE_SAVE_NOTEBOOK=yes"
    text = "\n".join(texts)
    assert not re.search(r"/(tmp|home|root|work|Users|var)/|[A-Z]:\\", text)
    assert str(Path.home()) not in text
    assert getpass.getuser() not in text
