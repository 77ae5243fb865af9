"""Compare the default search with a plain linear probe on the same images: accuracy on test images, and seconds.

    python -m benchmarks.against_probe --seeds 3 --json against_probe.jsonl

The tasks (:mod:`benchmarks.probe_tasks.tasks`) are made of images that packages carry; the backbone is
EfficientNet-Lite0 with ImageNet weights. For each task and seed there are two commands, one after the other, each with
empty caches:

- the plain probe: :mod:`benchmarks.peers.plain_probe`, a script without any code of this project;
- ``unfreeze search`` with its defaults, and with ``--search-arguments``.

The table shows the test accuracy of the winner (the mean of its final trainings, which the search reports) minus that
of the plain probe, with a 95 % interval over test images and seeds; each end is that of the wider of the product's two
paired intervals. Seconds count from the start of a process: of the search to its end and to the line that shows the
result of its own probe, and of the plain script to its end. Runs that ``--json`` already contains are not repeated.

Without internet access only the tasks ``digits``, ``characters`` and ``fonts`` can be made. The others read a package
of npm or Debian, which is downloaded once.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pyarrow.parquet as pq

from benchmarks.measurement.measure import QUIET, ROOT
from benchmarks.probe_tasks.tasks import TASKS, WrittenTask, write_task
from benchmarks.same_work import conditions
from search.records.predictions import image_keys, pack_bits, read_predictions, unpack_bits
from search.records.record import Interval
from search.records.stats.intervals import ConservativeInterval, paired_gain
from search.records.stats.paired_tests import bootstrap_gain
from trainables.methods.methods import PROBE

BACKBONE = "EfficientNetLite0"

MAX_DELAY = 1.5
"""The probe's result has to be shown within this multiple of the time of the plain script."""


@dataclass(frozen=True)
class Run:
    """Both commands on one task with one seed. All times are in seconds.

    Attributes:
        task, seed, size, arguments: what was run.
        labels, counts: number of labels, and of images by split.
        plain: packed bits (:func:`search.records.predictions.pack_bits`), whether the plain probe classifies each test
            image correctly.
        ours: likewise for each final training of the search's winner, with the test images in the same order.
        registered: index of the training whose model is registered.
        plain_penalty: scikit-learn's C that cross-validation chose.
        own_probe: test accuracy of the search's own probe; None if the search has none.
        method, params: of the winner.
        trials: number of trials by their state.
        epochs: number of epochs of all trials together.
        plain_seconds, search_seconds: of the whole commands.
        probe_seconds: until the search shows the result of its own probe; None if it has none.
        trials_seconds: until it shows its last trial.
        load: load of the machine before, between and after the two commands.
    """

    task: str
    seed: int
    size: int
    arguments: str
    labels: int
    counts: Mapping[str, int]
    plain: str
    ours: Sequence[str]
    registered: int
    plain_penalty: float
    own_probe: float | None
    method: str
    params: Mapping[str, Any]
    trials: Mapping[str, int]
    epochs: int
    plain_seconds: float
    search_seconds: float
    probe_seconds: float | None
    trials_seconds: float
    load: Sequence[float] = ()
    when: str = ""

    @property
    def plain_correct(self) -> np.ndarray:
        """(N,) whether the plain probe classifies each test image correctly."""
        return unpack_bits(self.plain)

    @property
    def our_correct(self) -> np.ndarray:
        """(N,) share of the winner's trainings that classify each test image correctly."""
        return np.asarray(np.stack([unpack_bits(bits) for bits in self.ours]).mean(axis=0))

    @property
    def registered_correct(self) -> np.ndarray:
        """(N,) whether the registered model classifies each test image correctly."""
        return unpack_bits(self.ours[self.registered])


@dataclass(frozen=True)
class Comparison(ConservativeInterval):
    """Test accuracy of the search minus that of the plain probe, over all seeds of a task."""

    gain: Interval
    bootstrap: Interval

    @classmethod
    def of(cls, runs: Sequence[Run]) -> Comparison:
        """Compare the rows of one task; each seed is one training of either side."""
        ours = np.stack([run.our_correct for run in runs])
        plain = np.stack([run.plain_correct for run in runs])
        return cls(paired_gain(ours, plain), bootstrap_gain(ours, plain))

    @property
    def verdict(self) -> str:
        """Whether the search is significantly better or worse."""
        if self.low > 0:
            return "better"
        return "worse" if self.high < 0 else "no difference"


@dataclass(frozen=True)
class ShownLines:
    """The lines that a command printed to stderr, each with its seconds since the start of the process."""

    lines: list[tuple[float, str]] = field(default_factory=list)

    def first(self, pattern: str) -> float | None:
        """Seconds until a line matched ``pattern``, or None."""
        return next((seconds for seconds, line in self.lines if re.search(pattern, line)), None)

    def last(self, pattern: str) -> float | None:
        """Seconds until the last line that matched ``pattern``, or None."""
        return next((seconds for seconds, line in reversed(self.lines) if re.search(pattern, line)), None)


def run(
    task: str,
    seed: int,
    size: int,
    arguments: str,
    written: WrittenTask,
    backbone: Path,
    logs: Path | None = None,
) -> Run:
    """Run the plain probe and the search, one after the other; what the search prints is kept in ``logs``."""
    with tempfile.TemporaryDirectory(prefix="against-probe-") as place:
        folder = Path(place)
        loads = [os.getloadavg()[0]]
        plain, plain_seconds = _plain_probe(folder, written.folder, seed, backbone)
        loads.append(os.getloadavg()[0])
        content, shown, search_seconds = _search(folder, written.folder, seed, size, arguments)
        loads.append(os.getloadavg()[0])
        if logs is not None:
            logs.mkdir(parents=True, exist_ok=True)
            lines = [f"{seconds:8.1f}  {line}\n" for seconds, line in shown.lines]
            (logs / f"{task}-{seed}.txt").write_text("".join(lines))
        outcome = content["outcome"]
        results = Path(content["storage"]) / content["search"]
        trials = pq.read_table(results / "trials.parquet").to_pylist()
        methods = {trial["number"]: trial["method"] for trial in trials}
        probes = [number for number, method in sorted(methods.items()) if method == PROBE]
        (file,) = (results / "winner").glob(f"*-{outcome['trial']}-answers.parquet")
        predictions = read_predictions(file)
        # The search keeps hashed names of the test images, in an order of its own.
        keys = dict(zip(image_keys(list(plain["correct"])), plain["correct"].values(), strict=True))
        # Sorted by these names, the images of all seeds have the same order, so that they can be averaged one by one.
        order = np.argsort(predictions.images)
        own = outcome["probe"]["test_accuracies"] if outcome["probe"] else None
        accuracies = predictions.correct.mean(axis=1) if methods[outcome["trial"]] == PROBE else own
        return Run(
            task=task,
            seed=seed,
            size=size,
            arguments=arguments,
            labels=written.labels,
            counts=dict(written.counts),
            plain=pack_bits(np.array([keys[predictions.images[i]] for i in order])),
            ours=[pack_bits(row[order]) for row in predictions.correct],
            registered=predictions.chosen,
            plain_penalty=plain["C"],
            own_probe=None if accuracies is None else float(np.mean(accuracies)),
            method=methods[outcome["trial"]],
            params=content["best"]["params"],
            trials=content["trials"],
            epochs=sum(trial["epochs"] for trial in trials),
            plain_seconds=plain_seconds,
            search_seconds=search_seconds,
            probe_seconds=shown.first(rf"^trial +{probes[0]}  ") if probes else None,
            trials_seconds=shown.last(r"^trial +\d+  ") or search_seconds,
            load=loads,
            when=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        )


def _plain_probe(folder: Path, images: Path, seed: int, backbone: Path) -> tuple[dict[str, Any], float]:
    result, log = folder / "plain.json", folder / "plain.txt"
    command = [sys.executable, "-m", "benchmarks.peers.plain_probe", str(backbone), str(images), str(seed)]
    began = time.monotonic()
    with log.open("w") as output:
        code = subprocess.run(
            [*command, str(result)], stdout=output, stderr=output, env={**os.environ, **QUIET}, cwd=ROOT
        ).returncode
    seconds = time.monotonic() - began
    if code:
        raise RuntimeError(f"the plain probe ended with code {code}:\n{log.read_text()[-3000:]}")
    return json.loads(result.read_text()), seconds


def _search(
    folder: Path, images: Path, seed: int, size: int, arguments: str
) -> tuple[dict[str, Any], ShownLines, float]:
    """Run ``unfreeze search`` as a user does; return its JSON, what it showed, and its seconds."""
    command = [str(Path(sys.executable).with_name("unfreeze")), "search", "--data", str(images), "--json"]
    command += ["--backbone", BACKBONE, "--input-size", str(size), "--seed", str(seed)]
    # Every search starts with empty caches: with those of another seed its probe would take no time.
    empty = {"UNFREEZE_STORAGE": str(folder / "runs"), "UNFREEZE_CACHE": str(folder / "cache")}
    shown, result = ShownLines(), folder / "search.json"
    work = folder / "work"
    work.mkdir()
    began = time.monotonic()
    with result.open("w") as output:
        process = subprocess.Popen(
            [*command, *shlex.split(arguments)],
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            cwd=work,
            env={**os.environ, **QUIET, **empty},
        )
        reader = threading.Thread(target=_read_lines, args=(process.stderr, shown, began))
        reader.start()
        code = process.wait()
        seconds = time.monotonic() - began
        reader.join()
    if code:
        raise RuntimeError(
            f"the search ended with code {code}:\n" + "\n".join(x for _, x in shown.lines[-40:])
        )
    return json.loads(result.read_text()), shown, seconds


def _read_lines(stream: Any, shown: ShownLines, began: float) -> None:
    for line in stream:
        shown.lines.append((time.monotonic() - began, line.rstrip("\n")))


def table(runs: Sequence[Run]) -> str:
    """A Markdown table with one row per task, and what it shows in words."""
    lines = [
        "| task | labels | training + validation / test images | seeds | search, % | registered model, % "
        "| plain probe, % | own probe, % | difference, points (95 %) | search is | winners | search, s "
        "| own probe shown, s | plain script, s | ratio |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- | --- | ---: | ---: | ---: | ---: |",
    ]
    verdicts: dict[str, str] = {}
    ratios = []
    for task in dict.fromkeys(run.task for run in runs):
        of = [run for run in runs if run.task == task]
        found = Comparison.of(of)
        verdicts[task] = found.verdict
        known = [run for run in of if run.probe_seconds is not None]
        own = [run.own_probe for run in of if run.own_probe is not None]
        shown = np.mean([run.probe_seconds for run in known]) if known else None
        plain_seconds = float(np.mean([run.plain_seconds for run in of]))
        ratios += [run.probe_seconds / run.plain_seconds for run in known if run.probe_seconds]
        counts = of[0].counts
        cells = [
            f"{task}{' *' if TASKS[task].can_gain else ''}",
            f"{of[0].labels}",
            f"{counts['train'] + counts['validation']} / {counts['test']}",
            f"{len(of)}",
            f"{100 * np.mean([run.our_correct.mean() for run in of]):.1f}",
            f"{100 * np.mean([run.registered_correct.mean() for run in of]):.1f}",
            f"{100 * np.mean([run.plain_correct.mean() for run in of]):.1f}",
            f"{100 * np.mean(own):.1f}" if own else "",
            f"{_points(found.gain.estimate)} ({_points(found.low)} to {_points(found.high)})",
            found.verdict,
            ", ".join(f"{run.method} {run.params.get('unfreeze_depth', '')}".strip() for run in of),
            f"{np.mean([run.search_seconds for run in of]):.0f}",
            f"{shown:.1f}" if shown is not None else "",
            f"{plain_seconds:.1f}",
            f"{shown / plain_seconds:.2f}" if shown is not None else "",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    gains = [task for task in verdicts if TASKS[task].can_gain]
    lines += [
        "",
        "\\* Fine-tuning can be expected to help: many labels, or images far from photographs. Winners are given with "
        "the number of unfrozen blocks.",
        "",
        f"- significantly worse than the plain probe: {sum(v == 'worse' for v in verdicts.values())} of "
        f"{len(verdicts)} tasks; better: {sum(v == 'better' for v in verdicts.values())}, of them "
        f"{sum(verdicts[task] == 'better' for task in gains)} of the {len(gains)} marked tasks",
        f"- own probe shown within {MAX_DELAY} times the seconds of the plain script: "
        f"{sum(ratio <= MAX_DELAY for ratio in ratios)} of {len(ratios)} runs",
    ]
    return "\n".join(lines)


def _points(share: float) -> str:
    return f"{100 * share:+.1f}".replace("-", "−")


def read(file: Path) -> list[Run]:
    """Read what earlier runs appended to ``file``."""
    lines = file.read_text().splitlines() if file.exists() else []
    return [Run(**json.loads(line)) for line in lines]


def save_backbone(size: int, folder: Path) -> Path:
    """Write the backbone with inputs of ``size`` as a Keras file for the plain script, unless it is there."""
    file = folder / f"{BACKBONE}-{size}.keras"
    if not file.is_file():
        from trainables.backbones.spec import BackboneSpec
        from trainables.modalities.image.backbones import load

        load(BackboneSpec(BACKBONE, input_size=size)).save(file)
    return file


def main() -> None:
    parser = argparse.ArgumentParser(description="The default search, compared with a plain linear probe.")
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS), metavar="TASK")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=64, help="height and width of the images in pixels")
    parser.add_argument(
        "--search-arguments",
        default="",
        metavar="TEXT",
        help="further options of unfreeze search, as one text",
    )
    parser.add_argument(
        "--data",
        type=Path,
        default=Path.home() / ".cache" / "unfreeze-benchmarks" / "against-probe",
        help="folder of downloaded packages and of tasks, kept for the next time",
    )
    parser.add_argument(
        "--logs", type=Path, help="folder for what each search prints, with the seconds since its start"
    )
    parser.add_argument("--json", type=Path, default=Path("against_probe.jsonl"), help="appended to")
    given = parser.parse_args()
    print(conditions(), flush=True)

    def wanted(run: Run) -> bool:
        return (run.size, run.arguments) == (given.size, given.search_arguments) and run.task in given.tasks

    runs = [run for run in read(given.json) if wanted(run)]
    known = {(run.task, run.seed) for run in runs}
    for task in given.tasks:
        for seed in range(given.first_seed, given.first_seed + given.seeds):
            if (task, seed) in known:
                continue
            written = write_task(task, given.size, given.data)
            backbone = save_backbone(given.size, given.data)
            runs.append(run(task, seed, given.size, given.search_arguments, written, backbone, given.logs))
            with given.json.open("a") as output:
                output.write(json.dumps(asdict(runs[-1])) + "\n")
            print(table(runs), flush=True)
    if len(runs) == len(known) > 0:  # nothing was left to do
        print(table(runs))


if __name__ == "__main__":
    main()
