"""Measure what the prior on several backbones is worth in real searches: with it, without it, and in reversed order.

    python -m benchmarks.studies.backbone_prior --seeds 5 --output prior.jsonl

Backbones and tasks are those of :mod:`benchmarks.studies.transferability`: small networks pretrained on one half of
scikit-learn's digits, one that was not pretrained, and the built-in one. The other half of the digits is divided for
each seed into training (ten images per digit), validation (twenty) and test. A search is a real one except for Ray
Tune (:mod:`benchmarks.studies.search_in_process`): core space, TPE, complete trials. Searches of one seed share data
and seed, so differences are paired. Searches that ``--output`` already contains are not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from scipy.stats import kendalltau

from benchmarks.studies.search_in_process import bench_for_task, gain, search
from benchmarks.studies.transferability import BACKBONES, TASKS, make_backbone, make_task
from search.config.parameters import BACKBONE
from search.config.space import core_space
from search.ledger.sampling.backbone_prior import PRIOR_SCORE, BackbonePrior
from search.ledger.sampling.proposals import ProposalChain
from trainables.training.workbench import Workbench
from trainables.transferability.feature_sample import extract_features, score_sample, shared_image_ids

ARMS = ("off", "on", "turned round")
AFTER = (1, 2, 4, 8, 12, 16)


def guides(arm: str, scores: Mapping[str, float]) -> ProposalChain:
    """The proposal sources of a search."""
    if arm == "off":
        return ProposalChain()
    sign = 1.0 if arm == "on" else -1.0
    return ProposalChain([BackbonePrior({name: sign * score for name, score in scores.items()})])


def h_scores(benches: Mapping[str | None, Workbench], seed: int) -> dict[str, float]:
    """The H-scores that a search would compute."""
    found = {}
    for name, bench in benches.items():
        images = shared_image_ids([bench.task], seed)
        found[str(name)] = score_sample(extract_features(bench.activations, bench.task, images))[PRIOR_SCORE]
    return found


def run(given: argparse.Namespace, done: list[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    """Run the missing searches, seed by seed, so that existing results are always paired."""
    space = core_space(4, backbones=dict.fromkeys(given.backbones, 4))
    known = {(d["task"], d["seed"], d["arm"]) for d in done}
    opened: dict[tuple[str, int], Workbench] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        files = {name: make_backbone(name, folder, given.pretraining) for name in given.backbones}
        for seed in range(given.first_seed, given.first_seed + given.seeds):
            for name in given.tasks:
                if all((name, seed, arm) in known for arm in ARMS):
                    continue
                task = make_task(name, folder / f"{name} {seed}", seed)
                benches: dict[str | None, Workbench] = {}
                for backbone, file in files.items():
                    key = backbone, len(task.classes)
                    if key not in opened:
                        opened[key] = Workbench.open(file, task.directory)
                    benches[backbone] = bench_for_task(opened[key], task)
                scores = h_scores(benches, seed)
                for arm in ARMS:
                    if (name, seed, arm) in known:
                        continue
                    began = time.monotonic()
                    found = search(benches, space, given.trials, given.epochs, seed, guides(arm, scores))
                    yield {
                        "task": name,
                        "seed": seed,
                        "arm": arm,
                        "scores": scores,
                        "best": found.best,
                        "tests": found.tests,
                        "values": [t.value for t in found.trials],
                        "params": [dict(t.params) for t in found.trials],
                        "origins": [t.origin for t in found.trials],
                        "seconds": round(time.monotonic() - began, 1),
                    }


def curves(done: Sequence[Mapping[str, Any]], arm: str, what: str, task: str | None = None) -> np.ndarray:
    """Best values (seeds, trials) of an arm; without a task, the mean over the tasks."""
    seeds = sorted({d["seed"] for d in done})
    kept = [
        [d[what] for d in done if d["arm"] == arm and d["seed"] == s and task in (None, d["task"])]
        for s in seeds
    ]
    return np.array([np.mean(rows, axis=0) for rows in kept])


def tables(done: Sequence[Mapping[str, Any]]) -> str:
    """Print the best value so far and its difference from no prior, over all tasks and for each task."""
    after = [k for k in AFTER if k <= len(done[0]["best"])]
    lines = []
    for what in ("best", "tests"):
        lines += [f"\n{'validation' if what == 'best' else 'test'}, all tasks\n"]
        lines += ["| prior | " + " | ".join(f"after {k}" for k in after) + " |"]
        lines += ["| --- |" + " ---: |" * len(after)]
        off = curves(done, "off", what)
        lines += ["| off | " + " | ".join(f"{off[:, k - 1].mean():.3f}" for k in after) + " |"]
        for arm in ARMS[1:]:
            own = curves(done, arm, what)
            cells = [gain(own[:, k - 1].tolist(), off[:, k - 1].tolist()) for k in after]
            lines += [f"| {arm}, over off | " + " | ".join(cells) + " |"]
    for task in dict.fromkeys(d["task"] for d in done):
        lines += [f"\nvalidation, {task}: off, on over off, turned round over off"]
        off = curves(done, "off", "best", task)
        for arm in ARMS:
            own = curves(done, arm, "best", task)
            ends = [(own[:, k - 1], off[:, k - 1]) for k in after]
            cells = [f"{o.mean():.3f} ({gain(o.tolist(), f.tolist())})" for o, f in ends]
            lines += [f"{arm}: " + " | ".join(cells)]
    return "\n".join(lines)


def orders(done: Sequence[Mapping[str, Any]]) -> str:
    """Rank correlation of the scores with the best value that any search of the task reached on each backbone."""
    lines = []
    for task in dict.fromkeys(d["task"] for d in done):
        here = [d for d in done if d["task"] == task]
        names = list(here[0]["scores"])
        reached: dict[str, list[float]] = {name: [] for name in names}
        for d in here:
            for params, value in zip(d["params"], d["values"], strict=True):
                if value is not None:
                    reached[params[BACKBONE]].append(value)
        best = {name: max(values, default=float("nan")) for name, values in reached.items()}
        upper = {
            name: float(np.quantile(values, 0.75)) if values else 0.0 for name, values in reached.items()
        }
        scores = {name: float(np.mean([d["scores"][name] for d in here])) for name in names}
        tau = kendalltau(list(scores.values()), list(upper.values())).statistic
        told = ", ".join(f"{n} {scores[n]:.2f} → {upper[n]:.3f} (best {best[n]:.3f})" for n in names)
        lines.append(f"{task}: Kendall's τ {tau:+.2f}; H-score → upper quartile of trials: {told}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="What the prior on several backbones is worth.")
    parser.add_argument("--tasks", nargs="+", default=["ten", "parity", "turned"], choices=TASKS)
    parser.add_argument(
        "--backbones", nargs="+", default=["ten", "parity", "turned", "untrained"], choices=BACKBONES
    )
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument(
        "--pretraining", type=int, default=12, help="epochs of pretraining of the small networks"
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("prior.jsonl"), help="appended to")
    given = parser.parse_args()
    lines = given.output.read_text().splitlines() if given.output.exists() else []
    done = [json.loads(line) for line in lines]
    with given.output.open("a") as sink:
        for found in run(given, done):
            done.append(found)
            sink.write(json.dumps(found, ensure_ascii=False) + "\n")
            sink.flush()
            print(
                found["task"],
                found["seed"],
                found["arm"],
                f"{found['best'][-1]:.3f}",
                found["seconds"],
                flush=True,
            )
    whole = [
        s
        for s in {d["seed"] for d in done}
        if len([d for d in done if d["seed"] == s]) == len(ARMS) * len(given.tasks)
    ]
    kept = [d for d in done if d["seed"] in whole]
    print(f"\n{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {len(whole)} seeds")
    print(tables(kept), "", orders(kept), sep="\n")


if __name__ == "__main__":
    main()
