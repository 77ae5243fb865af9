"""Registers a confirmed trial as a model version, through the thread that delivers to MLflow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from search.records.record import Outcome
from search.registry.front_versions import front_tags
from search.study.phase import Phase
from search.tracking.delivery import Delivery
from trainables.errors import TrackingError

UPLOAD_TIMEOUT = 300
"""Seconds for the upload of a model. An unreachable server is noticed earlier, by the first call."""


def register_version(
    search: Phase, outcomes: Sequence[Outcome], place: int, delivery: Delivery, models: Path, model_name: str
) -> Outcome:
    """Register the model of one outcome.

    Args:
        outcomes: of the winner (the first) and of other points of the front.
        place: index of the outcome; the winner is also proposed as challenger.
        models: folder of the models and of their predictions for the test split.

    Returns:
        The outcome with the name and version of its model.
    """
    from search.registry import register

    outcome = outcomes[place]
    record = replace(search.record(), outcome=outcome)
    answers = models / outcome.answers_file if outcome.answers_file else None
    examples = np.array(search.prepared.for_params(outcome.params).task.split("validation").images[:4])
    delivery.call(lambda mirror: mirror.run_id(outcome.trial))  # fails soon if the server is unreachable
    version = delivery.call(
        lambda mirror: register(
            record,
            models / outcome.model_file,
            run_id=mirror.run_id(outcome.trial),
            examples=examples,
            model_name=model_name,
            tracking_uri=search.tracking_uri,
            predictions=answers,
            point=front_tags(record, [o.trial for o in outcomes]),
            challenger=place == 0,
        ),
        timeout=UPLOAD_TIMEOUT,
    )
    return replace(outcome, model_name=model_name, model_version=str(version.version))


def model_state(outcome: Outcome | None, tracking_uri: str) -> str:
    """Return which aliases an outcome's version has now, or why none; empty if it is not registered or unknown.

    The search may have ended long ago, and the aliases may have moved since.
    """
    if outcome is None or not outcome.model_name or not outcome.model_version:
        return ""
    from search.registry.versions import version_state
    from search.tracking.client import connect, translate_errors

    try:
        client = connect(tracking_uri)
        with translate_errors(tracking_uri):
            return version_state(client, outcome.model_name, outcome.model_version)
    except TrackingError:  # the model was deleted, or the server has just gone away
        return ""
