"""The options --precision and --jit: the values that they accept, and their effect on trials."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from search import SearchConfig
from search.config.config_file import load_config
from search.execution.engines.engine import Engine
from search.execution.engines.messages import TrialRequest, WorkbenchPaths
from trainables.backbones.spec import BackboneSpec
from trainables.errors import UsageError
from trainables.modalities.image.backbones import load
from trainables.modalities.image.datasets import prepare
from trainables.training.trial_config import TrialConfig


@pytest.mark.parametrize(("given", "kept"), [("AUTO", "auto"), (True, "on"), (False, "off"), ("on", "on")])
def test_jit_accepts_names_and_yaml_booleans(given: Any, kept: str) -> None:
    assert SearchConfig(jit=given).jit == kept


def test_a_yaml_file_may_hold_on_and_off(tmp_path: Path) -> None:
    (tmp_path / "search.yaml").write_text("jit: off\nprecision: mixed_bfloat16\n")
    config = load_config(tmp_path / "search.yaml")
    assert (config.jit, config.precision) == ("off", "mixed_bfloat16")


@pytest.mark.parametrize(
    ("key", "given", "words"),
    [
        ("precision", "float16", "precision: expected one of auto, float32, mixed_float16, mixed_bfloat16"),
        ("jit", "maybe", "jit: expected one of auto, on, off"),
    ],
)
def test_another_name_is_refused(key: str, given: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        SearchConfig.model_validate({key: given})


def test_an_engine_trains_in_the_requested_precision(tmp_path: Path) -> None:
    load(BackboneSpec("print")).save(tmp_path / "backbone.keras")
    task = prepare("digits", image_size=(32, 32), directory=tmp_path / "digits")
    paths = WorkbenchPaths(tmp_path / "backbone.keras", task.directory)
    params = {"unfreeze_depth": 1, "learning_rate": 3e-3, "head_units": 0, "augmentation_strength": 0.0}
    trial = TrialRequest("a", TrialConfig("finetune", params, epochs=1, seed=4), paths)
    found = {}
    for precision in ("float32", "mixed_bfloat16"):
        engine = Engine(threads=2, precision=precision)
        engine.begin(trial)
        metrics = engine.epoch("a").metrics
        assert metrics is not None
        found[precision] = metrics.train_loss
        engine.end("a")
    assert found["mixed_bfloat16"] != found["float32"]
    assert found["mixed_bfloat16"] == pytest.approx(found["float32"], rel=0.01)
