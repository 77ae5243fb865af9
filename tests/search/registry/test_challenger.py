"""Which versions take the alias ``challenger``, on a real SQLite store with the predictions of made-up models."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from registered_model import IMAGES, LABELS, Model, answers
from simultaneous import at_once

from search.records.predictions import PREDICTIONS_FILE, PredictionRecord
from search.records.record import Baseline, Interval, Outcome
from search.registry import challenger as module
from search.registry.challenger import challenger_obstacle, majority_obstacle, propose_challenger
from search.registry.front_versions import FRONT_TAG
from search.registry.gate import GateCandidate
from search.registry.versions import NOT_PROPOSED_TAG, Version, to_version, version_state
from search.tracking.tags import TEST_DIGEST_TAG
from trainables.errors import TrackingError

Confusion = tuple[tuple[int, ...], ...]

NOT_BETTER = "is not significantly better than always answering the most frequent class"


def outcome(confusion: Confusion) -> Outcome:
    accuracy = Interval(0.9, 0.8, 1.0)
    return Outcome(0, {}, (1, 2, 3), (0.9, 0.9, 0.9), accuracy, (0.9, 0.9, 0.9), confusion)


PROBE = Baseline("probe", {}, 1, (0.9, 0.9, 0.9))
IS_PROBE: dict[str, Any] = {"probe": PROBE, "probe_won": True}
LIKE_PROBE: dict[str, Any] = {"probe": PROBE, "probe_gain": Interval(0.01, -0.005, 0.025)}
BEATS_PROBE: dict[str, Any] = {"probe": PROBE, "probe_gain": Interval(0.02, 0.005, 0.035)}


def confusion_of(given: PredictionRecord) -> Confusion:
    counts = np.zeros((3, 3), int)
    np.add.at(counts, (given.labels, given.predicted[given.chosen]), 1)
    return tuple(tuple(map(int, row)) for row in counts)


def constant(label: int = 0) -> PredictionRecord:
    """A model that gives one answer whatever it sees, after each of its training runs."""
    return replace(answers(0), predicted=np.full((3, IMAGES), label))


def single(given: PredictionRecord) -> PredictionRecord:
    return replace(given, predicted=given.predicted[:1])


def propose(
    model: Model, number: str, given: PredictionRecord | None = None, facts: Mapping[str, Any] | None = None
) -> Version:
    """Propose a registered version as a search does. ``facts`` are those of its outcome on the probe."""
    version = to_version(model.client.get_model_version(model.name, number))
    found = replace(outcome(confusion_of(given if given is not None else answers(5))), **(facts or {}))
    return propose_challenger(model.client, version, found, "About it.", model.uri)


def register(
    model: Model,
    given: PredictionRecord,
    size: int = 1_000_000,
    facts: Mapping[str, Any] | None = None,
    **tags: str,
) -> Version:
    return propose(model, model.add_unproposed(given, size, **tags), given, facts)


def description(model: Model, number: str) -> str:
    return str(model.client.get_model_version(model.name, number).description or "")


@pytest.mark.parametrize(
    "confusion",
    [
        pytest.param(((40, 0), (30, 0)), id="always the most frequent class"),
        pytest.param(((0, 40), (0, 30)), id="always another class"),
        pytest.param(((35, 0, 0), (35, 0, 0), (35, 0, 0)), id="equally frequent classes"),
        pytest.param(((20, 20), (20, 20)), id="a random guess"),
        pytest.param(((38, 2), (27, 3)), id="hardly better"),
        pytest.param(((50, 0), (0, 0)), id="one class only"),
        pytest.param(((1, 0), (0, 0)), id="one image"),
        pytest.param(((1, 0), (0, 1)), id="two images"),
    ],
)
def test_a_model_that_is_not_better_than_the_most_frequent_class_is_found(confusion: Confusion) -> None:
    assert NOT_BETTER in (majority_obstacle(outcome(confusion)) or "")


@pytest.mark.parametrize(
    "confusion",
    [
        pytest.param(((30, 10), (10, 30)), id="better"),
        # McNemar's test finds what the interval of the accuracy, 90 to 93 %, does not exclude.
        pytest.param(((893, 7), (75, 25)), id="a dominating class"),
        # Too few for McNemar's test; the interval, 44 to 100 %, lies above a third.
        pytest.param(((1, 0, 0), (0, 1, 0), (0, 0, 1)), id="few images"),
        pytest.param((), id="unknown"),
        pytest.param(((0, 0), (0, 0)), id="no images"),
    ],
)
def test_a_better_model_or_one_without_counts_is_not_held_back(confusion: Confusion) -> None:
    assert majority_obstacle(outcome(confusion)) is None


def test_of_a_thousand_guesses_few_pass_as_better_than_the_most_frequent_class() -> None:
    random = np.random.default_rng(0)
    passed = 0
    for _ in range(1000):
        # A coin decides each prediction between two equally frequent classes.
        right = random.binomial(30, 0.5, 2)
        passed += (
            majority_obstacle(
                outcome(((int(right[0]), 30 - int(right[0])), (30 - int(right[1]), int(right[1]))))
            )
            is None
        )
    assert passed <= 50


def test_the_reason_names_both_accuracies_and_the_number_of_images() -> None:
    reason = majority_obstacle(outcome(((40, 0), (30, 0))))
    assert reason == (f"its test accuracy of 57.1 % {NOT_BETTER}, which is correct for 57.1 % of 70 images")


def test_a_model_like_the_most_frequent_class_is_never_proposed(model: Model) -> None:
    for label in range(3):
        version = register(model, constant(label))
        assert model.alias("challenger") is None
        assert NOT_BETTER in version.tags[NOT_PROPOSED_TAG]
        assert description(model, version.version).startswith("Not proposed as challenger: its test accuracy")
        assert description(model, version.version).endswith(" About it.")
    good = register(model, answers(40))
    assert model.alias("challenger") == good.version
    for label in range(3):
        register(model, constant(label))
        assert model.alias("challenger") == good.version


def test_a_model_like_the_most_frequent_class_on_other_images_is_not_proposed_either(model: Model) -> None:
    good = register(model, answers(40))
    register(model, replace(constant(), digest="e" * 64))
    assert model.alias("challenger") == good.version


def test_a_worse_model_does_not_take_the_alias_from_a_better_one(model: Model) -> None:
    register(model, answers(5))
    version = register(model, answers(60))
    assert model.alias("challenger") == "1"
    assert version.tags[NOT_PROPOSED_TAG].startswith(
        "version 1, which is the challenger, is better: +18.3 points ("
    )
    assert "on 300 test images" in version.tags[NOT_PROPOSED_TAG]
    assert "Not proposed as challenger: version 1, which" in description(model, "2")


@pytest.mark.parametrize("wrong", [40, 39, 41, 5], ids=["equal", "hardly better", "hardly worse", "better"])
def test_a_model_that_is_not_worse_takes_the_alias(model: Model, wrong: int) -> None:
    register(model, answers(40))
    version = register(model, answers(wrong))
    assert model.alias("challenger") == version.version == "2"
    assert NOT_PROPOSED_TAG not in version.tags
    assert description(model, "2") == ""


@pytest.mark.parametrize("facts", [IS_PROBE, LIKE_PROBE], ids=["the probe", "like the probe"])
def test_a_model_that_is_not_better_than_the_probe_becomes_the_first_challenger(
    model: Model, facts: dict[str, Any]
) -> None:
    version = register(model, answers(40), facts=facts)
    assert model.alias("challenger") == version.version == "1"
    assert NOT_PROPOSED_TAG not in version.tags


@pytest.mark.parametrize("wrong", [40, 39, 41], ids=["equal", "hardly better", "hardly worse"])
@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (IS_PROBE, "it is the frozen probe, and it is not significantly better than version 1, which"),
        (
            LIKE_PROBE,
            "than the frozen probe (−0.5 to +2.5 points) nor than version 1, which is the challenger: ",
        ),
    ],
    ids=["the probe", "like the probe"],
)
def test_a_model_that_is_not_better_than_the_probe_does_not_replace_one_that_is_as_good(
    model: Model, facts: dict[str, Any], words: str, wrong: int
) -> None:
    register(model, answers(40))
    version = register(model, answers(wrong), facts=facts)
    assert model.alias("challenger") == "1"
    assert words in version.tags[NOT_PROPOSED_TAG]
    assert "on 300 test images" in version.tags[NOT_PROPOSED_TAG]
    assert register(model, answers(wrong), facts=BEATS_PROBE).version == model.alias("challenger") == "3"


@pytest.mark.parametrize("facts", [IS_PROBE, LIKE_PROBE], ids=["the probe", "like the probe"])
def test_a_model_that_is_not_better_than_the_probe_replaces_a_worse_or_costlier_one(
    model: Model, facts: dict[str, Any]
) -> None:
    register(model, answers(60))
    better = register(model, answers(5), facts=facts)
    assert (model.alias("challenger"), NOT_PROPOSED_TAG in better.tags) == ("2", False)
    cheaper = register(model, answers(5), size=500_000, facts=facts)
    assert (model.alias("challenger"), NOT_PROPOSED_TAG in cheaper.tags) == ("3", False)


def test_a_model_that_is_not_better_than_the_probe_replaces_one_that_it_cannot_be_compared_with(
    model: Model,
) -> None:
    register(model, answers(5))
    version = register(model, replace(answers(60), digest="e" * 64), facts=IS_PROBE)
    assert (model.alias("challenger"), NOT_PROPOSED_TAG in version.tags) == ("2", False)


def test_with_a_single_seed_a_probe_replaces_only_a_model_that_is_served_and_worse(model: Model) -> None:
    register(model, single(answers(60)))
    assert NOT_PROPOSED_TAG in register(model, single(answers(58)), facts=IS_PROBE).tags
    assert register(model, single(answers(5)), facts=IS_PROBE).version == model.alias("challenger") == "3"


@pytest.mark.parametrize(
    ("changes", "tags"),
    [
        ({"digest": "e" * 64}, {}),
        ({"classes": ("a", "b", "d")}, {}),
        ({}, {"unfreeze.input": "float32 (-1, 4)"}),
        ({}, {TEST_DIGEST_TAG: "f" * 64}),
    ],
    ids=["other images", "other classes", "another input", "an invalid file"],
)
def test_a_newer_model_that_cannot_be_compared_takes_the_alias(
    model: Model, changes: dict[str, Any], tags: dict[str, str]
) -> None:
    register(model, answers(5))
    number = model.add_unproposed(replace(answers(60), **changes))
    for key, value in tags.items():
        model.client.set_model_version_tag(model.name, number, key, value)
    assert NOT_PROPOSED_TAG not in propose(model, number, answers(60)).tags
    assert model.alias("challenger") == number


def test_a_challenger_without_readable_predictions_loses_the_alias_to_a_newer_one(model: Model) -> None:
    model.add(None)
    assert register(model, answers(60)).version == model.alias("challenger") == "2"
    (model.folder / "2" / PREDICTIONS_FILE).write_bytes(b"nonsense")
    assert register(model, answers(90)).version == model.alias("challenger") == "3"


def test_with_a_single_seed_the_models_that_are_served_are_compared(model: Model) -> None:
    register(model, single(answers(5)))
    version = register(model, single(answers(60)))
    assert model.alias("challenger") == "1"
    assert "only it is correct on 55 test images, only the new one on 0" in version.tags[NOT_PROPOSED_TAG]
    assert register(model, single(answers(8))).version == model.alias("challenger") == "3"


def test_a_cheaper_model_within_the_margin_of_the_gate_takes_the_alias(model: Model) -> None:
    """It is certainly worse, but by less than a point, and the gate would promote it over the other one."""
    images = 9000
    base = answers(0)
    labels = np.tile(LABELS, images // IMAGES)
    right = np.tile(labels, (3, 1))
    worse = right.copy()
    worse[:, : images // 200] = (worse[:, : images // 200] + 1) % 3
    keys = tuple(map(str, range(images)))
    kept = {"labels": labels, "images": keys, "scratch": np.empty((0, images), np.int64)}
    register(model, replace(base, predicted=right, **kept))
    register(model, replace(base, predicted=worse, **kept))
    assert model.alias("challenger") == "1"
    register(model, replace(base, predicted=worse, **kept), size=500_000)
    assert model.alias("challenger") == "3"


def test_the_winner_of_a_front_takes_the_alias_from_another_point_of_it(model: Model) -> None:
    """It is the best in the first objective, which need not be the accuracy."""
    tags = {FRONT_TAG: "f", "unfreeze.started": "now"}
    winner = model.add_unproposed(answers(60), **tags)
    model.add(answers(5), **tags)
    propose(model, winner, answers(60))
    assert model.alias("challenger") == winner


def test_an_older_search_that_is_registered_late_takes_the_alias_only_if_it_is_better(model: Model) -> None:
    equal, better = (model.add_unproposed(answers(wrong)) for wrong in (40, 5))
    newest = model.add(answers(40))
    version = propose(model, equal, answers(40))
    assert (model.alias("challenger"), NOT_PROPOSED_TAG in version.tags) == (newest, False)
    propose(model, better, answers(5))
    assert model.alias("challenger") == better


def test_a_repeated_registration_completes_what_a_killed_one_left(model: Model) -> None:
    register(model, answers(5))
    for wrong, alias in ((60, "1"), (4, "3")):  # killed after the version was created
        number = model.add_unproposed(answers(wrong))
        assert model.alias("challenger") == "1"
        first = propose(model, number, answers(wrong))
        assert model.alias("challenger") == alias
        assert propose(model, number, answers(wrong)) == first
        assert model.alias("challenger") == alias


def test_the_reason_is_removed_once_it_no_longer_holds(model: Model) -> None:
    register(model, answers(5))
    register(model, answers(60))
    model.client.delete_model_version(model.name, "1")
    version = propose(model, "2", answers(60))
    assert (model.alias("challenger"), description(model, "2")) == ("2", "About it.")
    assert NOT_PROPOSED_TAG not in version.tags


def test_a_version_that_was_made_challenger_by_hand_keeps_the_alias(model: Model) -> None:
    register(model, constant())
    model.client.set_registered_model_alias(model.name, "challenger", "1")
    propose(model, "1", constant())
    assert model.alias("challenger") == "1"


def test_versions_are_compared_again_if_the_alias_moves_meanwhile(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.add(answers(90))
    better, mine = model.add_unproposed(answers(5)), model.add_unproposed(answers(60))
    compared: list[str] = []

    def download(version: Version, tracking_uri: str) -> GateCandidate:
        # While this search compares its model with version 1, another one proposes a better model.
        if not compared:
            model.client.set_registered_model_alias(model.name, "challenger", better)
        compared.append(version.version)
        return original(version, tracking_uri)

    original = module.download_candidate
    monkeypatch.setattr(module, "download_candidate", download)
    propose(model, mine, answers(60))
    assert compared == [mine, "1", mine, better]
    assert model.alias("challenger") == better


def in_a_process(
    model: Model, number: str, given: PredictionRecord, first: str = ""
) -> subprocess.Popen[str]:
    code = (
        f"import json, sys\n{first}\n"
        "from search.records.record import Interval, Outcome\n"
        "from search.registry.challenger import propose_challenger\n"
        "from search.registry.versions import to_version\n"
        "from search.tracking.client import connect\n"
        "name, uri, number, confusion = sys.argv[1:]\n"
        "client = connect(uri)\n"
        "version = to_version(client.get_model_version(name, number))\n"
        "found = Outcome(0, {}, (1,), (1.0,), Interval(1, 1, 1), (1.0,), json.loads(confusion))\n"
        "print('ready', flush=True)\nsys.stdin.readline()\n"
        "propose_challenger(client, version, found, 'About it.', uri)\n"
    )
    rows = [list(row) for row in confusion_of(given)]
    return subprocess.Popen(
        [sys.executable, "-c", code, model.name, model.uri, number, str(rows)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_of_searches_that_register_at_the_same_time_the_best_is_the_challenger(model: Model) -> None:
    given = [answers(60), answers(5), constant()]
    numbers = [model.add_unproposed(one) for one in given]
    processes = [in_a_process(model, number, one) for number, one in zip(numbers, given, strict=True)]
    assert [code for code, _ in at_once(*processes)] == [0, 0, 0]
    assert model.alias("challenger") == numbers[1]
    assert not any("turn" in key for key in model.tags())


def test_a_process_that_is_killed_while_it_holds_the_lock_does_not_stop_the_next_one(model: Model) -> None:
    number = model.add_unproposed(answers(5))
    die = (
        "import os\nfrom search.registry.model_lock import BakeryLock\n"
        "BakeryLock.verify_held = lambda self: os.kill(os.getpid(), 9)"
    )
    process = in_a_process(model, number, answers(5), first=die)
    process.communicate("\n", timeout=300)
    assert process.returncode == -signal.SIGKILL
    assert (model.alias("challenger"), any("turn" in key for key in model.tags())) == (None, True)
    propose(model, number, answers(5))
    assert (model.alias("challenger"), model.tags()) == (number, {})


def test_without_versions_to_compare_only_the_outcome_decides() -> None:
    bad, good = (outcome(confusion_of(one)) for one in (constant(), answers(40)))
    new, current = GateCandidate("2", answers(40)), GateCandidate("1", answers(5))
    assert challenger_obstacle(good) is None
    assert challenger_obstacle(good, new) is None
    assert NOT_BETTER in (challenger_obstacle(bad) or "")
    assert "version 1, which is the challenger, is better" in (challenger_obstacle(good, new, current) or "")
    assert challenger_obstacle(good, current, new) is None


def test_versions_with_a_single_image_are_not_compared() -> None:
    one = replace(
        answers(0).select_images([0]), predicted=np.zeros((3, 1), int), scratch=np.empty((0, 1), np.int64)
    )
    found = outcome(confusion_of(answers(40)))
    for facts in ({}, IS_PROBE):
        compared = replace(found, **facts)
        assert challenger_obstacle(compared, GateCandidate("2", one), GateCandidate("1", one)) is None


def test_the_state_of_a_version_names_its_aliases_or_why_it_has_none(model: Model) -> None:
    def state(number: str) -> str:
        return version_state(model.client, model.name, number)

    version = model.add_unproposed(answers(5))
    assert state(version) == "no alias"
    propose(model, version)
    assert state(version) == "alias challenger"
    model.client.set_registered_model_alias(model.name, "champion", version)
    assert state(version) == "aliases challenger and champion"
    assert NOT_BETTER in state(register(model, constant()).version)
    assert state(model.add_unproposed(answers(5))) == "the challenger is version 1"
    assert state("77") == "deleted from the registry"
    with pytest.raises(TrackingError, match="expected a registered model"):
        version_state(model.client, "no such model", "1")
