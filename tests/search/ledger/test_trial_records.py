"""Test the translation between Optuna's trials, with the ledger's attributes, and our records."""

from __future__ import annotations

import math

import optuna
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from search.ledger.attributes import (
    CHUNK_EPOCHS,
    StudyKey,
    TrialAttributes,
    TrialKey,
    finite_rounded,
    newest_curve_chunk,
)
from search.ledger.trial_records import (
    STATES,
    SearchObjectives,
    evaluated_trials,
    intermediate_values,
    to_record,
    with_epoch,
)
from search.records.record import TrialRecord
from trainables.epoch_metrics import EpochMetrics

ACCURACY = SearchObjectives("val_accuracy", "maximize")
FRONT = SearchObjectives("val_accuracy", "maximize", ("val_accuracy", "parameters"))


def epoch(number: int, accuracy: float) -> EpochMetrics:
    return EpochMetrics(number, accuracy, 0.5, 0.5, 0.1)


def test_the_keys_of_the_ledger_s_format_stay_the_same() -> None:
    def values(keys: type) -> set[str]:
        return {value for name, value in vars(keys).items() if name.isupper()}

    assert values(StudyKey) == {
        *("format", "driver", "identity", "about", "started", "elapsed", "stopped", "prior", "warm_start"),
        *("edges", "outcome", "alternatives", "serving_costs"),
    }
    assert values(TrialKey) == {
        *("method", "seed", "enqueued", "origin", "retries", "batch_size", "node", "reason", "error"),
        *("spent", "stages", "objectives", "curve", "head_init"),
    }


def test_every_state_of_optuna_has_one_of_ours() -> None:
    assert STATES.keys() == set(TrialState)


def test_a_trial_is_translated_with_all_its_attributes() -> None:
    trial = create_trial(
        state=TrialState.PRUNED,
        params={"learning_rate": 0.5},
        distributions={"learning_rate": FloatDistribution(0, 1)},
        user_attrs={
            "method": "distill",
            "seed": 7,
            "curve:0": [[1, 0.5, "nan", 0.25, 0.1], [2, 0.75, 0.5, 0.25, 0.1]],
            "reason": "scheduler",
            "node": "n1",
            "origin": "prior",
            "retries": 2,
            "batch_size": 8,
            "spent": {"stages": {"suffix": 1.5}, "cost": {"hits": 3}},
            "objectives": {"parameters": 10.0},
        },
    )
    record = to_record(trial, FRONT, "finetune")
    assert (record.state, record.method, record.seed, record.reason) == ("pruned", "distill", 7, "scheduler")
    assert (record.node, record.origin, record.retries, record.batch_size) == ("n1", "prior", 2, 8)
    assert (record.stages, record.cost) == ({"suffix": 1.5}, {"hits": 3})
    assert record.value == 0.75
    assert math.isnan(record.epochs[0].val_loss)
    assert record.objectives == {"val_accuracy": 0.75, "parameters": 10.0}
    assert FRONT.result(record) == [0.75, 10.0]
    assert FRONT.directions == ("maximize", "minimize")


def test_attributes_of_the_first_versions_are_read() -> None:
    old = [[number, number / 100, 0.5, 0.5, 0.1] for number in range(1, 4)]
    known = TrialAttributes.read({"curve": old, "curve:0": [[3, 0.9, 0.5, 0.5, 0.1]], "stages": {"s": 1.0}})
    assert [e.val_accuracy for e in known.epochs] == [0.01, 0.02, 0.9]
    assert (known.stages, known.cost) == ({"s": 1.0}, {})
    assert TrialAttributes.read({}) == TrialAttributes()


def test_an_enqueued_trial_has_the_parameters_that_were_asked_for() -> None:
    study = optuna.create_study()
    study.enqueue_trial({"learning_rate": 0.5, "method": "distill"})
    record = to_record(study.trials[0], ACCURACY, "finetune")
    assert (record.state, record.method) == ("waiting", "distill")
    assert record.params == {"learning_rate": 0.5, "method": "distill"}


def test_an_epoch_is_added_once() -> None:
    first = with_epoch(TrialRecord(0, "running", "finetune", {}), epoch(1, 0.5), ACCURACY)
    second = with_epoch(first, epoch(2, 0.25), ACCURACY)
    assert with_epoch(second, epoch(2, 0.9), ACCURACY) is second
    assert second.value == 0.5
    assert [e.epoch for e in second.epochs] == [1, 2]
    assert with_epoch(first, epoch(2, math.nan), ACCURACY).value == 0.5


def test_a_chunk_holds_the_newest_epochs_only() -> None:
    epochs = tuple(epoch(number, 0.5) for number in range(1, CHUNK_EPOCHS + 3))
    key, rows = newest_curve_chunk(epochs)
    assert key == f"curve:{CHUNK_EPOCHS}"
    assert [row[0] for row in rows] == [CHUNK_EPOCHS + 1, CHUNK_EPOCHS + 2]


def test_values_that_optuna_or_json_can_not_hold_are_left_out() -> None:
    record = TrialRecord(
        0, "complete", "finetune", {}, epochs=(epoch(1, math.nan), epoch(2, math.inf), epoch(3, 0.5))
    )
    assert intermediate_values(record, "val_accuracy") == {3: 0.5}
    assert ACCURACY.best_value(record.epochs) == 0.5
    assert ACCURACY.best_value(record.epochs[:2]) is None
    assert FRONT.result(record) is None
    assert finite_rounded({"a": 0.12345678, "b": math.nan, "c": "x", "d": 3}) == {
        "a": 0.123457,
        "c": "x",
        "d": 3,
    }


def test_importance_ignores_trials_that_failed_or_lack_a_parameter() -> None:
    distributions = {"x": FloatDistribution(0, 1)}
    trials = [create_trial(params={"x": 0.5}, distributions=distributions, value=0.5) for _ in range(4)]
    records = [
        TrialRecord(0, "complete", "finetune", {"x": 0.5}, 0.5),
        TrialRecord(1, "failed", "finetune", {"x": 0.5}, 0.5),
        TrialRecord(2, "complete", "finetune", {}, 0.5),
        TrialRecord(3, "pruned", "finetune", {"x": 0.5}, None),
    ]
    assert [trial.value for trial in evaluated_trials(records, trials)] == [0.5]


def test_a_curve_from_before_a_metric_was_added_is_read_with_that_metric_unknown() -> None:
    key, rows = newest_curve_chunk((epoch(1, 0.25), epoch(2, 0.5)))
    (first, second) = TrialAttributes.read({key: [row[:-1] for row in rows]}).epochs
    assert (first.epoch, first.val_accuracy, first.val_loss, first.train_loss) == (1, 0.25, 0.5, 0.5)
    assert second.val_accuracy == 0.5
    assert math.isnan(first.epoch_seconds)
    assert math.isnan(second.epoch_seconds)
