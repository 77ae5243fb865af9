"""Search spaces: the built-in ones, space files, and files of configurations to try first."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.config.enqueue import read_enqueue
from search.config.space import (
    Choice,
    FloatRange,
    IntRange,
    Space,
    core_space,
    full_space,
    load_space,
    make_space,
)
from trainables.errors import UsageError

T = TypeVar("T")
CORE = ["unfreeze_depth", "learning_rate", "head_units", "augmentation_strength"]
FULL = [
    *CORE,
    *("weight_decay", "dropout", "label_smoothing", "backbone_lr_ratio", "horizontal_flip", "head_init"),
    *("l2sp", "layer_lr_decay", "gradual_unfreezing"),
]
DEEP = ("backbone_lr_ratio", "l2sp", "layer_lr_decay", "gradual_unfreezing")
TRANSFERS = ("unfreeze_depth", "head_init", *DEEP)


@pytest.fixture(autouse=True, scope="module")
def _quiet_optuna() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def suggestions(space: Space, count: int = 40, seed: int = 0) -> list[dict[str, Any]]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return [space.suggest(study.ask()) for _ in range(count)]


def outcome_of(call: Callable[[], T]) -> T | str:
    """Return the result of ``call``, or the message of a UsageError. Any other exception fails the test."""
    try:
        return call()
    except UsageError as error:
        return str(error)


def loaded(folder: Path, content: str, blocks: int = 3, method: str = "finetune") -> Space:
    file = folder / "my space.yaml"
    file.write_text(content, encoding="utf-8")
    return load_space(file, blocks, method)


def enqueued(folder: Path, content: str, space: Space | None = None) -> list[dict[str, Any]]:
    file = folder / "first ü.jsonl"
    file.write_text(content, encoding="utf-8", newline="")
    return read_enqueue(file, space or full_space(3))


@pytest.mark.parametrize(
    ("space", "names"),
    [
        (core_space(4), CORE),
        (full_space(4), FULL),
        (core_space(4, "scratch"), CORE[1:]),
        (full_space(4, "scratch"), [n for n in FULL if n not in TRANSFERS]),
    ],
)
def test_built_in_spaces_have_the_parameters_of_their_method(space: Space, names: list[str]) -> None:
    assert list(space.ranges) == names
    for params in suggestions(space):
        assert set(params) <= set(names)
        assert space.check(params) == params


def test_an_unused_parameter_is_not_suggested() -> None:
    found = suggestions(full_space(2), 60)
    assert {p["unfreeze_depth"] for p in found} == {0, 1, 2}
    for params in found:
        for name in DEEP:
            assert (name in params) == (params["unfreeze_depth"] > 0)
    assert {params["head_init"] for params in found if not params["unfreeze_depth"]} == {"random", "probe"}


def test_the_space_of_an_earlier_version_has_no_head_init_at_depth_0() -> None:
    space = full_space(2, random_heads=True)
    for params in suggestions(space, 30):
        assert ("head_init" in params) == (params["unfreeze_depth"] > 0)
    assert space.describe()["head_init"]["when"] == "unfreeze_depth > 0"
    assert "when" not in full_space(2).describe()["head_init"]
    same = {name: values for name, values in space.describe().items() if name != "head_init"}
    assert {**same, "head_init": full_space(2).describe()["head_init"]} == full_space(2).describe()
    with pytest.raises(UsageError, match="only where unfreeze_depth is above 0"):
        space.check({"unfreeze_depth": 0, "head_init": "probe"})


def test_a_head_that_may_see_no_labels_of_the_target_starts_at_random() -> None:
    assert "head_init" not in full_space(2, "source").ranges
    assert "head_init" in full_space(2, "source", random_heads=True).ranges
    assert "head_init" not in full_space(2, "align", unlabelled=True).ranges


def test_a_backbone_without_blocks_trains_its_head() -> None:
    assert {p["unfreeze_depth"] for p in suggestions(core_space(0), 5)} == {0}


def test_suggested_values_have_the_type_of_the_parameter() -> None:
    (params,) = suggestions(full_space(2), 1, seed=1)
    kinds = {name: type(value) for name, value in params.items()}
    assert kinds["unfreeze_depth"] is int
    assert kinds["head_units"] is int
    assert kinds["learning_rate"] is float
    assert kinds["horizontal_flip"] is bool


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"lerning_rate": 1e-3}, "did you mean 'learning_rate'?"),
        ({"learning_rate": 1}, "expected a number from 0.0001 to 0.03, received 1"),
        ({"learning_rate": "1e-3"}, "received '1e-3'"),
        ({"learning_rate": True}, "received true"),
        ({"learning_rate": float("nan")}, "received nan"),
        ({"head_units": 100}, "in steps of 64, received 100"),
        ({"head_units": 10**400}, "expected a whole number"),
        ({"unfreeze_depth": 1.5}, "expected a whole number from 0 to 3"),
        ({"unfreeze_depth": 4}, "received 4"),
        ({"augmentation_strength": 0.3}, "in steps of 0.25, received 0.3"),
        ({"horizontal_flip": 1}, "expected one of false, true, received 1"),
        ({"unfreeze_depth": 0, "backbone_lr_ratio": 0.1}, "only where unfreeze_depth is above 0"),
        ({"backbone_lr_ratio": 0.1}, "expected together with unfreeze_depth"),
        ({"unfreeze_depth": 1, "head_init": "linear"}, "expected one of random, probe, received 'linear'"),
        ({"unfreeze_depth": 1, "head_init": True}, "expected one of random, probe, received true"),
        ({"dropout": [0.1]}, "received [0.1]"),
        ({}, "at least one parameter"),
    ],
)
def test_a_value_outside_the_space_is_refused_by_name(params: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        full_space(3).check(params)
    assert words in str(caught.value)
    assert str(caught.value).startswith(tuple(params) or "expected")


def test_a_parameter_of_another_space_or_method_is_refused_with_the_reason() -> None:
    with pytest.raises(UsageError, match="not a parameter of this space"):
        core_space(3).check({"dropout": 0.1})
    with pytest.raises(UsageError, match="the method 'scratch' does not use it"):
        core_space(3, "scratch").check({"unfreeze_depth": 1})


def test_checked_values_have_the_types_and_order_of_the_space() -> None:
    checked = core_space(3).check({"head_units": 64.0, "learning_rate": 0.01, "unfreeze_depth": 2})
    assert list(checked.items()) == [("unfreeze_depth", 2), ("learning_rate", 0.01), ("head_units", 64)]
    assert isinstance(checked["head_units"], int)


@pytest.mark.parametrize(
    ("params", "edges"),
    [
        ({"learning_rate": 1e-4}, ("learning_rate",)),
        ({"learning_rate": 1.1e-4}, ("learning_rate",)),
        ({"learning_rate": 2e-4}, ()),
        ({"learning_rate": 0.029}, ("learning_rate",)),
        ({"learning_rate": 0.02}, ()),
        ({"head_units": 0}, ()),
        ({"head_units": 192}, ()),
        ({"head_units": 256}, ("head_units",)),
        ({"unfreeze_depth": 0}, ()),
        ({"unfreeze_depth": 4}, ()),
        ({"augmentation_strength": 0.0}, ()),
        ({"augmentation_strength": 1.0}, ()),
        ({"dropout": 0.5, "label_smoothing": 0.0}, ("dropout",)),
        ({"backbone_lr_ratio": 1.0}, ()),
        ({"backbone_lr_ratio": 0.01}, ("backbone_lr_ratio",)),
        ({"horizontal_flip": True}, ()),
        ({"l2sp": 0.0, "layer_lr_decay": 1.0, "gradual_unfreezing": 0.0}, ()),
        (
            {"l2sp": 1.0, "layer_lr_decay": 0.3, "gradual_unfreezing": 0.75},
            ("l2sp", "layer_lr_decay", "gradual_unfreezing"),
        ),
    ],
)
def test_only_edges_that_could_be_moved_are_reported(params: dict[str, Any], edges: tuple[str, ...]) -> None:
    assert full_space(4).parameters_at_edge(params) == edges


def test_edges_of_a_space_file(tmp_path: Path) -> None:
    space = loaded(
        tmp_path, "unfreeze_depth: {low: 1, high: 2}\nhead_units: [16, 64, 256]\nlearning_rate: 0.001\n"
    )
    assert space.parameters_at_edge({"unfreeze_depth": 1, "head_units": 256, "learning_rate": 0.001}) == (
        "unfreeze_depth",
        "head_units",
    )
    assert space.parameters_at_edge({"unfreeze_depth": 2, "head_units": 64}) == ("unfreeze_depth",)
    two = loaded(tmp_path, "head_units: [0, 64]\n")
    assert two.parameters_at_edge({"head_units": 64}) == ()


def test_a_space_file_is_the_whole_space(tmp_path: Path) -> None:
    space = loaded(
        tmp_path,
        "head_units: [0, 64]\nlearning_rate: {low: 1e-4, high: 1e-2, log: true}\n"
        "unfreeze_depth: {low: 0, high: 2}\ndropout: 0.3\nhorizontal_flip: [true, false]\nhead_init: probe\n",
    )
    assert space.ranges == {
        "unfreeze_depth": IntRange(0, 2),
        "learning_rate": FloatRange(1e-4, 1e-2, log=True),
        "head_units": Choice((0, 64)),
        "augmentation_strength": Choice((0.0,)),
        "dropout": Choice((0.3,)),
        "horizontal_flip": Choice((True, False)),
        "head_init": Choice(("probe",)),
    }
    for params in suggestions(space):
        assert params["dropout"] == 0.3
        assert params["augmentation_strength"] == 0
        assert params["unfreeze_depth"] <= 2


def test_a_space_file_applies_to_the_baseline(tmp_path: Path) -> None:
    space = loaded(
        tmp_path,
        "unfreeze_depth: 2\nbackbone_lr_ratio: 0.1\nhead_init: probe\nlearning_rate: [0.001, 0.01]\n",
        method="scratch",
    )
    assert list(space.ranges) == ["learning_rate", "head_units", "augmentation_strength"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "the file is empty"),
        ("learning_rte: 1\n", "learning_rte: unknown parameter (did you mean 'learning_rate'?)"),
        ("learning_rate: 0\n", "learning_rate: expected a number above 0 to 10, received 0"),
        ("learning_rate: fast\n", "received 'fast'"),
        ("learning_rate:\n", "a range such as {low: 0, high: 2}"),
        ("learning_rate: [[1]]\n", "a range such as {low: 0, high: 2}"),
        ("learning_rate: []\n", "at least one value"),
        ("learning_rate: {low: 0.01, high: 0.001}\n", "low at most high"),
        ("learning_rate: {low: 0.01}\n", "high missing"),
        ("learning_rate: {low: 0.01, hi: 1}\n", "received 'hi'"),
        ("learning_rate: {low: 0.01, high: 0.1, log: 1}\n", "log: expected true or false"),
        ("learning_rate: {low: 0.01, high: 0.1, step: 0.01, log: true}\n", "either step or log"),
        ("learning_rate: {low: 0.01, high: 0.1, step: -1}\n", "step: expected a number above 0"),
        ("dropout: {low: 0, high: 0.5, log: true}\n", "a low above 0 with log: true"),
        ("dropout: 1\n", "a number from 0 below 1"),
        ("unfreeze_depth: 4\n", "a whole number from 0 to 3, received 4"),
        ("unfreeze_depth: {low: 0, high: 9}\n", "high: expected a whole number from 0 to 3"),
        ("unfreeze_depth: 1.5\n", "a whole number"),
        ("unfreeze_depth: true\n", "received true"),
        ("head_units: {low: 0, high: 200, step: 64}\n", "such as 192"),
        ("head_units: {low: 0, high: 256, step: 0.5}\n", "step: expected a whole number above 0"),
        ("head_units: [64, 64]\n", "different values"),
        ("horizontal_flip: {low: 0, high: 1}\n", "[false, true]"),
        ("head_init: linear\n", "expected one of random, probe, received 'linear'"),
        ("head_init: [probe, probe]\n", "different values"),
        ("head_init: {low: 0, high: 1}\n", "expected one of random, probe, or a list of them"),
        ("horizontal_flip: yes\n", "expected true or false, received 'yes'"),
        ("head_units: 1" + "0" * 400, "expected a whole number"),
    ],
)
def test_a_message_names_the_wrong_entry_of_a_space_file(tmp_path: Path, content: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        loaded(tmp_path, content)
    assert "my space.yaml" in str(caught.value)
    assert words in str(caught.value)


def test_a_changed_space_is_described_differently(tmp_path: Path) -> None:
    described = core_space(3).describe()
    assert json.loads(json.dumps(described)) == described
    assert described == core_space(3).describe()
    assert described != core_space(2).describe()
    assert described != full_space(3).describe()
    assert full_space(3).describe()["backbone_lr_ratio"]["when"] == "unfreeze_depth > 0"


def test_make_space_accepts_names_and_files(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("dropout: 0.1\n")
    assert make_space("core", 2).ranges == core_space(2).ranges
    assert make_space("full", 2, "scratch").ranges == full_space(2, "scratch").ranges
    assert "dropout" in make_space(str(file), 2).ranges


def test_optuna_runs_the_enqueued_configurations(tmp_path: Path) -> None:
    space = full_space(3)
    lines = [{"unfreeze_depth": 0, "learning_rate": 0.01}, {"unfreeze_depth": 2, "backbone_lr_ratio": 0.5}]
    found = enqueued(tmp_path, "\r\n".join(map(json.dumps, lines)) + "\n\n", space)
    assert found == lines
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for params in found:
        study.enqueue_trial(params)
    for params in found:
        suggested = space.suggest(study.ask())
        assert suggested.items() >= params.items()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "received no line"),
        ("\n \n", "received no line"),
        ('{"learning_rate": 0.01}\n{"learning_rate": 7}\n', "line 2: learning_rate: expected"),
        ("[1]\n", "line 1: expected a JSON object"),
        ("{\n", "line 1: expected a JSON object, received '{'"),
        ('{"learning_rate": NaN}\n', "line 1: expected finite numbers, received NaN"),
        ('{"learning_rate": 0.01, "learning_rate": 0.02}\n', "expected once, received 2 times"),
        ("{}\n", "at least one parameter"),
        ("[" * 100_000, "line 1: expected a JSON object"),
        ('{"head_units": ' + "9" * 5000 + "}", "line 1: expected a JSON object"),
    ],
)
def test_a_message_names_the_wrong_line_of_an_enqueue_file(tmp_path: Path, content: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        enqueued(tmp_path, content)
    assert "first ü.jsonl" in str(caught.value)
    assert words in str(caught.value)


def test_a_missing_enqueue_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.jsonl.*no such file"):
        read_enqueue(tmp_path / "none.jsonl", core_space(2))


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6)
json_values = st.recursive(
    scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=5), v, max_size=3)
)
ranges = st.fixed_dictionaries({}, optional=dict.fromkeys(("low", "high", "step", "log", "x"), scalars))
parameter_names = st.sampled_from(FULL) | st.text(max_size=5)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(parameter_names, json_values, max_size=4))
def test_any_configuration_is_accepted_or_refused_with_a_message(params: dict[str, Any]) -> None:
    space = full_space(3)
    checked = outcome_of(lambda: space.check(params))
    if not isinstance(checked, str):
        assert space.check(checked) == checked
        assert set(space.parameters_at_edge(checked)) <= set(checked)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(parameter_names, ranges | json_values, max_size=4))
def test_any_space_file_is_accepted_or_refused_with_a_message(
    tmp_path_factory: pytest.TempPathFactory, content: dict[str, Any]
) -> None:
    file = tmp_path_factory.getbasetemp() / "fuzzed-space.yaml"
    file.write_text(json.dumps(content), encoding="utf-8")
    space = outcome_of(lambda: load_space(file, 3))
    if isinstance(space, str):
        assert str(file) in space
        return
    for params in suggestions(space, 3):
        assert space.check(params) == params


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=120) | json_values.map(lambda v: json.dumps(v).encode()))
def test_any_enqueue_file_is_accepted_or_refused_with_a_message(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    file = tmp_path_factory.getbasetemp() / "fuzzed.jsonl"
    file.write_bytes(content)
    found = outcome_of(lambda: read_enqueue(file, full_space(3)))
    assert str(file) in found if isinstance(found, str) else found
