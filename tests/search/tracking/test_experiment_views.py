"""MLflow stores views of runs in a private format of its UI, which these tests compare with the installed MLflow."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from search.tracking.experiment_views import VIEW_TAG_PREFIX


def test_the_installed_mlflow_ui_reads_views_in_our_format() -> None:
    spec = find_spec("mlflow")
    assert spec is not None
    assert spec.origin is not None
    scripts = (Path(spec.origin).parent / "server" / "js" / "build" / "static" / "js").glob("*.js")
    code = [
        text for script in scripts if VIEW_TAG_PREFIX in (text := script.read_text("utf-8", errors="replace"))
    ]
    assert code, f"no script of the installed UI contains {VIEW_TAG_PREFIX!r}"
    for part in ("deflate;", "createdAt", "updatedAt"):
        assert any(part in text for text in code), part
