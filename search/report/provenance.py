"""List what is needed to repeat the search: data, backbone, settings and versions."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from search.ledger.sampling.backbone_prior import BackbonePrior, evaluate_prior
from search.ledger.sampling.warm_start import WARM_START_ORIGIN
from search.ledger.sampling.warm_start_prior import warm_start_summary
from search.records.formatting import without_secrets
from search.records.record import BackboneSummary, SearchRecord
from search.records.units import format_duration
from search.report.analysis.wording import format_number, join_words, label

PACKAGES = ("unfreeze", "ray", "optuna", "mlflow", "keras", "tensorflow")
MAX_CLASSES = 100


@dataclass(frozen=True)
class Facts:
    """A titled list of names and values."""

    title: str
    entries: tuple[tuple[str, str], ...]


def provenance(record: SearchRecord) -> list[Facts]:
    """Return everything that the record says about the origin of its numbers, without passwords."""
    groups = [
        Facts("Search", tuple(_search(record))),
        Facts("Task", tuple(_task(record))),
        *_backbones(record),
        Facts("Teacher", tuple(_backbone(record.teacher)) if record.teacher else ()),
        Facts("Prior on the backbones", tuple(_prior(record))),
        Facts("Taken from earlier searches", tuple(_warm_start(record))),
        Facts("Winner", tuple(_winner(record))),
        Facts("Settings", tuple((name, _json(value)) for name, value in record.config.items())),
        Facts("Versions where this report was written", tuple(_versions())),
    ]
    shown = [Facts(g.title, tuple((name, without_secrets(text)) for name, text in g.entries)) for g in groups]
    return [group for group in shown if group.entries]


def _search(record: SearchRecord) -> Iterable[tuple[str, str]]:
    yield "name", record.name
    yield "objective", f"{record.metric}, {record.direction}d"
    yield "seed", _json(record.config.get("seed"))
    yield "trials requested", str(record.requested)
    if record.started is not None:
        yield "started", record.started.isoformat(sep=" ", timespec="seconds")
    yield "elapsed", format_duration(record.elapsed)
    yield "storage", record.storage
    yield "tracking", record.tracking_uri


def _task(record: SearchRecord) -> Iterable[tuple[str, str]]:
    task = record.task
    yield "name", task.name
    yield "source", task.source
    yield "digest", task.digest
    yield "images", join_words([f"{amount:,} {split}" for split, amount in task.counts.items()])
    yield "image size", " × ".join(map(str, task.image_size))
    more = len(task.classes) - MAX_CLASSES
    names = ", ".join(task.classes[:MAX_CLASSES]) + (f" and {more} more" if more > 0 else "")
    yield f"{len(task.classes)} classes", names


def _backbones(record: SearchRecord) -> Iterable[Facts]:
    if not record.backbones:
        yield Facts("Backbone", tuple(_backbone(record.backbone)))
    for name, backbone in record.backbones.items():
        count = sum(t.params.get("backbone") == name for t in record.trials)
        yield Facts(f"Backbone {name}", (*_backbone(backbone), ("trials", str(count))))


def _backbone(backbone: BackboneSummary) -> Iterable[tuple[str, str]]:
    yield "name", backbone.name
    yield "weights", backbone.weights
    yield "digest", backbone.digest
    yield "input size", " × ".join(map(str, backbone.input_size))
    yield "parameters", f"{backbone.parameters:,}"
    yield f"{len(backbone.blocks)} blocks", ", ".join(backbone.blocks)


def _prior(record: SearchRecord) -> Iterable[tuple[str, str]]:
    if record.prior is None:
        return
    prior = BackbonePrior.from_json(record.prior)
    yield "score", "H-score of frozen features"
    for name, chance in prior.probabilities.items():
        yield name, f"score {format_number(prior.scores[name])}, {100 * chance:.0f} % of the first trials"
    yield "seconds", format_number(prior.seconds)
    if worth := evaluate_prior(record):
        yield "agreement with the results", str(worth)


def _warm_start(record: SearchRecord) -> Iterable[tuple[str, str]]:
    for transferred in record.warm_start or ():
        where = f"{transferred['search']}, trial {transferred['trial']}"
        details = f"similarity {format_number(transferred['similarity'])}, there {format_number(transferred['value'])}"
        yield where, f"{_json(transferred['params'])}; {details}"
    tried = [t for t in record.trials if (t.origin or "").startswith(WARM_START_ORIGIN)]
    yield from ((f"trial {t.number}", str(t.origin)) for t in tried)
    if worth := warm_start_summary(record):
        yield "agreement with the results", worth


def _winner(record: SearchRecord) -> Iterable[tuple[str, str]]:
    outcome = record.outcome
    if outcome is None:
        return
    yield "trial", str(outcome.trial)
    yield from ((label(name), _json(value)) for name, value in outcome.params.items())
    yield "seeds", join_words([str(seed) for seed in outcome.seeds])
    yield "validation accuracies", join_words([format_number(value) for value in outcome.val_accuracies])
    yield "test accuracies", join_words([format_number(value) for value in outcome.seed_test_accuracies])
    if outcome.main_baseline is not None:
        yield "baseline", _json(outcome.main_baseline.params)
    for other in outcome.baselines[1:]:
        yield f"baseline {other.method}", _json(other.params)
    if outcome.model_name:
        yield "registered as", f"{outcome.model_name}, version {outcome.model_version or '?'}"


def _json(value: object) -> str:
    if isinstance(value, str):
        return value
    plain = dict(value) if isinstance(value, Mapping) else value
    return json.dumps(plain, ensure_ascii=False, default=str)


def _versions() -> Iterable[tuple[str, str]]:
    yield "python", platform.python_version()
    for package in PACKAGES:
        try:
            yield package, version(package)
        except PackageNotFoundError:
            yield package, "not installed"
