"""Reads a search back from its ledger, without its data, its backbone or Ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.config.search_config import SearchConfig
from search.ledger.attributes import StudyKey
from search.ledger.format_version import check_format, explain_unreadable
from search.ledger.workspace import Workspace
from search.records.record import BackboneSummary, SearchRecord, TaskSummary, rank_key
from trainables.errors import LedgerError, UsageError

if TYPE_CHECKING:
    from search.ledger.ledger import Ledger


def about_to_json(record: SearchRecord) -> dict[str, Any]:
    """Return what the driver writes about a search under :attr:`~search.ledger.attributes.StudyKey.ABOUT`, for readers.

    With it a reader needs neither the data nor the backbone, which may be on another machine or gone.
    """
    return {
        "metric": record.metric,
        "direction": record.direction,
        "objectives": list(record.objectives),
        "task": vars(record.task),
        "source": vars(record.source) if record.source else None,
        "backbone": vars(record.backbone),
        "backbones": {name: vars(backbone) for name, backbone in record.backbones.items()},
        "teacher": vars(record.teacher) if record.teacher else None,
        "config": dict(record.config),
        "requested": record.requested,
        "tracking_uri": record.tracking_uri,
    }


def read_record(
    name: str, storage: str, ledger: str | None = None, *, baseline: bool = False, whole: bool = False
) -> SearchRecord:
    """Read the search ``name`` as its ledger has it now. It may be running.

    Args:
        name: of the search.
        storage: folder of all searches.
        ledger: URL of the database that holds the ledger; None if it is a file in the storage.
        baseline: read the search's baseline instead.
        whole: add the intervals of the importances, which take about a second to compute.

    Raises:
        LedgerError: there is no such search, or another version of unfreeze wrote it.
    """
    from search.ledger.ledger import (
        Ledger,
        sqlite_url,
    )  # loads Optuna, which commands that read nothing don't need

    workspace = Workspace(Path(storage).absolute(), name)
    if ledger is None and not workspace.ledger.is_file():
        where = f"{str(workspace.storage)!r}{_known(workspace)}"
        raise LedgerError(f"name: expected a search in {where}, received {name!r}")
    file, study = workspace.ledger, name
    if baseline:
        file, study = workspace.baseline_ledger(), workspace.baseline_name()
        if ledger is None and not file.is_file():
            raise LedgerError(f"name: expected a search with a baseline that has begun, received {name!r}")
    # Metric and direction are placeholders: they stand in the ledger, and _record sets them as soon as it has read
    # them.
    opened = Ledger(
        ledger or sqlite_url(file),
        study,
        direction="maximize",
        metric="val_accuracy",
        method="finetune",
        sampler="tpe",
        seed=0,
        create=False,
    )
    check_format(name, opened.attribute)
    about = opened.attribute(StudyKey.ABOUT)
    if about is None:
        raise LedgerError(f"name: expected a search that has begun its trials, received {name!r}")
    with explain_unreadable(name):
        record = _record(study, workspace, opened, about)
    return replace(record, importance_intervals=opened.importance_intervals()) if whole else record


def _record(name: str, workspace: Workspace, opened: Ledger, about: Mapping[str, Any]) -> SearchRecord:
    from search.records.results import outcome_from_json

    objectives = tuple(about.get("objectives", ()))
    opened.set_objectives(about["metric"], about["direction"], objectives)
    outcome, alternatives = opened.attribute(StudyKey.OUTCOME), opened.attribute(StudyKey.ALTERNATIVES) or []
    return SearchRecord(
        name=name,
        metric=about["metric"],
        direction=about["direction"],
        objectives=objectives,
        task=_task(about["task"]),
        source=_task(about["source"]) if about.get("source") else None,
        backbone=_backbone(about["backbone"]),
        teacher=_backbone(about["teacher"]) if about.get("teacher") else None,
        config=about["config"],
        trials=opened.trials,
        requested=about["requested"],
        started=datetime.fromisoformat(opened.attribute(StudyKey.STARTED)),
        elapsed=float(opened.attribute(StudyKey.ELAPSED) or 0.0),
        importances=opened.importances(),
        edges=tuple(opened.attribute(StudyKey.EDGES) or ()),
        outcome=outcome_from_json(outcome) if outcome else None,
        alternatives=tuple(map(outcome_from_json, alternatives)),
        storage=str(workspace.storage),
        tracking_uri=about["tracking_uri"],
        stopped=opened.attribute(StudyKey.STOPPED),
        prior=opened.attribute(StudyKey.PRIOR),
        warm_start=_several(opened.attribute(StudyKey.WARM_START)),
        backbones={name: _backbone(values) for name, values in about.get("backbones", {}).items()},
    )


def _task(values: Mapping[str, Any]) -> TaskSummary:
    height, width = values["image_size"]
    return TaskSummary(**{**values, "classes": tuple(values["classes"]), "image_size": (height, width)})


def _backbone(values: Mapping[str, Any]) -> BackboneSummary:
    height, width = values["input_size"]
    return BackboneSummary(**{**values, "blocks": tuple(values["blocks"]), "input_size": (height, width)})


def _known(workspace: Workspace) -> str:
    """Return the searches of the storage, for an error message."""
    found = sorted(p.parent.name for p in workspace.storage.glob("*/ledger.db"))
    return f" (there are: {', '.join(found[:20])})" if found else " (there is none yet)"


def _several(values: list[Any] | None) -> tuple[Any, ...] | None:
    return None if values is None else tuple(values)


def read_earlier_searches(config: SearchConfig, workspace: Workspace) -> list[SearchRecord]:
    """Read the searches that the setting ``warm_start`` names.

    Args:
        config: of the new search.
        workspace: of the new search; the earlier ones are in the same storage.

    Raises:
        UsageError: one is the new search itself, or has another objective.
        LedgerError: one does not exist, or has no result of any method of the new search.
    """
    found = []
    for name in config.warm_start or ():
        if name == workspace.name:
            raise UsageError(f"warm_start: expected another search than this one, received {name!r}")
        try:
            record = read_record(name, str(workspace.storage), config.ledger)
        except LedgerError as error:
            raise LedgerError(f"warm_start: {str(error).removeprefix('name: ')}") from error
        if record.metric != config.metric:
            raise UsageError(
                f"warm_start: expected a search for {config.metric}, received {name!r}, whose objective is "
                f"{record.metric}"
            )
        if not any(t.method in config.methods and rank_key(t, record.direction) for t in record.trials):
            raise LedgerError(
                f"warm_start: expected a search with a result of --method {' or '.join(config.methods)}, "
                f"received {name!r}, which has none"
            )
        found.append(record)
    return found
