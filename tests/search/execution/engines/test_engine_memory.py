"""Test 200 trials in one engine in a separate process: memory does not grow, and each shape is compiled once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

TRIALS = 200
WARM = 50
PROGRAMS = 6
"""Depth 0 has one program for each width of the head; depths 1 to 4 have one program each for all widths."""

RUN = f"""
import gc, itertools, json, sys
from pathlib import Path

import psutil

from search.execution.engines.engine import Engine
from search.execution.engines.jobs import PrepareBackbone
from search.execution.engines.messages import TrialRequest, WorkbenchPaths
from trainables.backbones.spec import BackboneSpec
from trainables.training.trial_config import TrialConfig
from trainables.modalities.image.datasets import prepare

folder = Path(sys.argv[1])
engine = Engine(threads=2)
found = engine.run(PrepareBackbone(BackboneSpec("print"), folder / "backbone.keras"))
task = prepare("digits", image_size=found.input_size, directory=folder / "digits")
paths = WorkbenchPaths(folder / "backbone.keras", task.directory)
shapes = itertools.cycle(itertools.product(range(5), (0, 64), (0.0, 0.5)))
for number, (depth, units, strength) in zip(range({TRIALS}), shapes):
    params = {{
        "unfreeze_depth": depth,
        "learning_rate": 10 ** (-2 - number % 7 / 4),
        "head_units": units,
        "augmentation_strength": strength,
    }}
    key, checkpoints = f"trial {{number}}", folder / "checkpoints ü" / f"{{number % 4:05d}}"
    for old in checkpoints.glob("*"):
        old.unlink()
    trial = TrialConfig("finetune", params, epochs=2 - bool(number % 4), seed=number)
    engine.begin(TrialRequest(key, trial, paths, checkpoints))
    result = engine.epoch(key)
    while not result.done:
        result = engine.epoch(key)
    engine.end(key)
    if number % 5 == 4:
        gc.collect()
    line = {{
        "reason": result.reason,
        "compile": result.stages.get("compile", 0.0),
        "compiled": engine.compiled(),
        "memory": psutil.Process().memory_info().rss,
        "threads": psutil.Process().num_threads(),
        "files": psutil.Process().num_fds(),
    }}
    print(json.dumps(line), flush=True)
"""


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the process printed after each trial."""
    folder: Path = tmp_path_factory.mktemp("long ü 字")
    run = subprocess.run(
        [sys.executable, "-c", RUN, str(folder)], stdout=subprocess.PIPE, check=True, text=True, timeout=500
    )
    return [json.loads(line) for line in run.stdout.splitlines()]


def test_memory_does_not_grow_with_the_number_of_trials(trials: list[dict[str, Any]]) -> None:
    assert len(trials) == TRIALS
    assert not any(trial["reason"] for trial in trials)
    measured = {number: trials[number - 1]["memory"] for number in range(WARM, TRIALS + 1, 25)}
    in_mb = {number: size >> 20 for number, size in measured.items()}
    assert max(measured.values()) < 1.1 * measured[WARM], in_mb
    assert trials[-1]["threads"] <= trials[WARM - 1]["threads"] + 2
    assert trials[-1]["files"] <= trials[WARM - 1]["files"] + 2


def test_each_shape_is_compiled_once_and_later_trials_of_it_trace_nothing(
    trials: list[dict[str, Any]],
) -> None:
    assert [trial["compiled"] for trial in trials[19:]] == [PROGRAMS] * (TRIALS - 19)
    assert max(trial["compile"] for trial in trials[20:]) < 0.01
    assert sum(trial["compile"] > 0.01 for trial in trials[:20]) >= PROGRAMS
