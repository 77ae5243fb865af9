"""Compare ways of training: the best setting of each by validation, its test accuracy, and differences over seeds."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy.stats import t as student


@dataclass(frozen=True)
class Paired:
    """One training: accuracies with the weights of its best epoch. ``setting`` describes what was tuned."""

    way: str
    setting: str
    seed: int
    validation: float
    test: float


def read(file: Path) -> list[Paired]:
    """Read the trainings that are already in ``file``."""
    if not file.exists():
        return []
    return [Paired(**json.loads(line)) for line in file.read_text().splitlines()]


def note(file: Path, done: Paired) -> None:
    """Append a training to ``file``."""
    with file.open("a") as sink:
        sink.write(json.dumps(asdict(done)) + "\n")


def difference(ours: Iterable[float], theirs: Iterable[float]) -> str:
    """Mean and 95 % interval (Student's t) of paired differences, in points."""
    values = 100 * (np.array(list(ours)) - np.array(list(theirs)))
    half = student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return f"{values.mean():+.1f} ({values.mean() - half:+.1f} to {values.mean() + half:+.1f})"


def table(runs: Sequence[Paired], baseline: str) -> str:
    """One row per way, at its setting with the best mean validation accuracy, with differences from ``baseline``."""
    best = {way: _best([r for r in runs if r.way == way]) for way in dict.fromkeys(r.way for r in runs)}
    lines = [
        "| way | setting | validation | test, mean ± deviation | difference, points |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for way, chosen in best.items():
        test = np.array([r.test for r in chosen])
        gain = difference(test, [r.test for r in best[baseline]]) if way != baseline else ""
        validation = np.mean([r.validation for r in chosen])
        lines.append(
            f"| {way} | {chosen[0].setting} | {validation:.3f} | {test.mean():.3f} ± {test.std(ddof=1):.3f} | {gain} |"
        )
    return "\n".join(lines)


def _best(runs: Sequence[Paired]) -> list[Paired]:
    settings = {r.setting for r in runs}
    means = {s: float(np.mean([r.validation for r in runs if r.setting == s])) for s in sorted(settings)}
    chosen = max(means, key=lambda s: means[s])
    return sorted((r for r in runs if r.setting == chosen), key=lambda r: r.seed)
