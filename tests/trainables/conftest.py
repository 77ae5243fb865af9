from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def print_bench(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """The built-in backbone and the digits, opened once."""
    from trainables.backbones.backbone import BackboneSpec, load
    from trainables.data.datasets import prepare
    from trainables.training.workbench import Workbench

    folder: Path = tmp_path_factory.mktemp("bench ü")
    backbone = folder / "backbone.keras"
    load(BackboneSpec("print")).save(backbone)
    task = prepare("digits", image_size=(32, 32), directory=folder / "digits")
    return Workbench.open(backbone, task.directory)
