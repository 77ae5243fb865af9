"""Define the views of a task's runs that MLflow's UI lists under *Views*: filter, order, columns and charts.

MLflow stores a view as a tag of the experiment: a JSON object with a name, two times and the compressed state of the
page. This is the private format ``SavedViews`` of the UI of MLflow 3.17, and it is used in this module only. A UI
that does not know it shows its usual page.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from search.config.parameters import parameters
from search.records.formatting import COLUMN_HEADINGS
from search.records.metrics import objective_column
from search.records.record import SearchRecord

VIEW_TAG_PREFIX = "mlflow.sharedViewState."
TRIALS_VIEW = "unfreeze-trials"
"""Key of the view to open: trials, the best on top, with the parameters that the searches varied."""

_TRIALS_NAME = "Trials, the best first"
_SEARCHES = "unfreeze-searches"
_SEARCHES_NAME = "Searches, their trials below them"
_SECTION = "Trials compared"
_MAX_LINES = 20
_NAME_WIDTH, _START_WIDTH = 320, 150
"""Pixels of the columns that are always there: a run's name, and when it began."""
_MAX_TAG_LENGTH = 5000
"""Maximum length of an experiment's tag, in characters."""


def view_tags(record: SearchRecord, now: int) -> dict[str, str]:
    """Return the views as tags of the experiment; ``now`` is in milliseconds since 1970."""
    views = {TRIALS_VIEW: (_TRIALS_NAME, _trials(record)), _SEARCHES: (_SEARCHES_NAME, _searches(record))}
    tags = {VIEW_TAG_PREFIX + key: _envelope(name, state, now) for key, (name, state) in views.items()}
    return {key: value for key, value in tags.items() if len(value) <= _MAX_TAG_LENGTH}


def is_outdated(known: str | None, wanted: str) -> bool:
    """Return whether a view should be written: it is missing, or it is ours and shows something else.

    A view that a person has changed stays as it is.
    """
    if known is None:
        return True
    try:
        old, new = json.loads(known), json.loads(wanted)
        # A person who saves a view in the UI changes updatedAt.
        return bool(old["createdAt"] == old["updatedAt"] and old["state"] != new["state"])
    except (ValueError, KeyError, TypeError):
        return False


def parameter_names(record: SearchRecord) -> list[str]:
    """Return the parameters that the trials varied, in the usual order; before the first trial, the core parameters."""
    found = {name for trial in record.trials for name in trial.params} or _core(record)
    usual = [name for name in COLUMN_HEADINGS if name in found]
    return [*usual, *sorted(found - set(usual))]


def _core(record: SearchRecord) -> set[str]:
    core = {name for name, p in parameters(len(record.backbone.blocks)).items() if p.core}
    return core | ({"backbone"} if record.backbones else set())


def _envelope(name: str, state: Mapping[str, Any], now: int) -> str:
    packed = base64.b64encode(zlib.compress(json.dumps(state, separators=(",", ":")).encode())).decode()
    return json.dumps({"name": name, "createdAt": now, "updatedAt": now, "state": f"deflate;{packed}"})


def _trials(record: SearchRecord) -> Mapping[str, Any]:
    best, names = f"best_{record.metric}", parameter_names(record)
    metrics = list(dict.fromkeys([best, record.metric, *map(objective_column, record.objectives)]))
    section = "unfreeze-trials-compared"
    charts = [
        _card("PARALLEL", section, selectedParams=names, selectedMetrics=[best], showAllRuns=True),
        _line(section, record.metric),
        _line(section, "train_loss"),
    ]
    if "learning_rate" in names:
        axes = {"xaxis": _axis("learning_rate", "PARAM"), "yaxis": _axis(best, "METRIC")}
        charts.append(_card("SCATTER", section, runsCountToCompare=100, **axes))
    return {
        "searchFilter": "tags.`unfreeze.kind` = 'trial'",
        "orderByKey": _column("metrics", best),
        "orderByAsc": record.direction == "minimize",
        **_columns(metrics, names, ["unfreeze.state", "unfreeze.reason"]),
        "runsHiddenMode": "FIRST_20_RUNS",
        "compareRunCharts": charts,
        "compareRunSections": [
            {
                "uuid": section,
                "name": _SECTION,
                "display": True,
                "columns": 2,
                "isReordered": False,
                "deleted": False,
            }
        ],
        "isAccordionReordered": True,  # MLflow then lists its own sections below ours
    }


def _searches(record: SearchRecord) -> Mapping[str, Any]:
    """Return the view of all searches, in the order of their start.

    This is the only order in which MLflow shows child runs below their parents.
    """
    tags = [
        "unfreeze.state",
        "unfreeze.test_accuracy",
        "unfreeze.probe_gain",
        "unfreeze.gain",
        "unfreeze.verdict",
    ]
    return {
        "searchFilter": "",
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        **_columns([f"best_{record.metric}", record.metric], parameter_names(record), tags),
    }


def _columns(metrics: Sequence[str], params: Sequence[str], tags: Sequence[str]) -> Mapping[str, Any]:
    """Return which columns are shown, in this order, each wide enough for its name."""
    named = [("metrics", metrics), ("params", params), ("tags", tags)]
    widths = {_column(kind, name): _width(name) for kind, names in named for name in names}
    fixed = {"tags.`mlflow.runName`": _NAME_WIDTH, "attributes.start_time": _START_WIDTH}
    return {
        "selectedColumns": list(widths),
        "columnOrder": [*fixed, *widths],
        "columnWidths": {**fixed, **widths},
    }


def _width(name: str) -> int:
    """Return the width of a column for its heading, in pixels."""
    return 48 + 7 * len(name)


def _column(kind: str, name: str) -> str:
    return f"{kind}.`{name}`"


def _line(section: str, metric: str) -> dict[str, Any]:
    return _card(
        "LINE",
        section,
        metricKey=metric,
        selectedMetricKeys=[metric],
        runsCountToCompare=_MAX_LINES,
        lineSmoothness=0,
        scaleType="linear",
        xAxisScaleType="linear",
        xAxisKey="step",
        selectedXAxisMetricKey="",
        yAxisKey="metric",
        yAxisExpressions=[],
        range={},
        ignoreOutliers=False,
        useGlobalXaxisKey=True,
        useGlobalLineSmoothing=True,
    )


def _axis(key: str, kind: str) -> dict[str, str]:
    return {"key": key, "type": kind}


def _card(kind: str, section: str, **settings: Any) -> dict[str, Any]:
    name = f"unfreeze-{kind.lower()}-{settings.get('metricKey', '')}"
    fixed = {"uuid": name, "type": kind, "metricSectionId": section, "deleted": False, "isGenerated": False}
    return {"runsCountToCompare": 10, **fixed, **settings}
