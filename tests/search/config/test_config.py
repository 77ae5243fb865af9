"""The configuration of a search: values, messages, config files, flags and environment variables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from search.config.choices import METHODS, SAMPLERS, SCHEDULERS
from search.config.config_file import load_config
from search.config.search_config import SearchConfig
from search.records.units import format_duration, parse_duration
from trainables.errors import UsageError


def refusal(**values: Any) -> str:
    with pytest.raises(UsageError) as caught:
        SearchConfig(**values)
    return str(caught.value)


def words_of(call: Callable[[], object]) -> str | None:
    """Return the message of a UsageError, or None. Any other exception fails the test."""
    try:
        call()
    except UsageError as error:
        return str(error)
    return None


def written(folder: Path, content: str | bytes, name: str = "config.yaml") -> Path:
    file = folder / name
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def test_the_default_is_the_digits_search() -> None:
    config = SearchConfig()
    assert (config.data, config.backbone, config.trials, config.storage) == (
        "digits",
        "print",
        24,
        "./unfreeze-runs",
    )
    assert (config.sampler, config.scheduler, config.space, config.method) == (
        "tpe",
        "asha",
        "core",
        "finetune",
    )
    assert config.direction == "maximize"
    assert SearchConfig(metric="val_loss").direction == "minimize"


def test_a_config_is_frozen() -> None:
    with pytest.raises(ValidationError):
        SearchConfig().trials = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("trials", 0, "a whole number from 1 to 1,000,000"),
        ("trials", "many", "a whole number from 1 to 1,000,000"),
        ("trials", True, "a whole number from 1 to 1,000,000"),
        ("trials", None, "a whole number"),
        ("epochs", 2.5, "a whole number"),
        ("input_size", 4, "a whole number from 8 to 4,096"),
        ("seed", -1, "a whole number"),
        ("sampler", "tpee", "one of tpe, random, qmc, cmaes, nsga2 (did you mean 'tpe'?)"),
        ("scheduler", 3, "one of asha, hyperband, median, none"),
        ("metric", "accuracy", "did you mean 'val_accuracy'?"),
        ("space", "ful", "did you mean 'full'?"),
        ("space", ["core"], "text"),
        ("enqueue", "first.csv", ".jsonl"),
        ("time_budget", "soon", "30m, 2h"),
        ("time_budget", 0, "above 0"),
        ("time_budget", True, "30m"),
        ("time_budget", float("nan"), "above 0"),
        ("name", "a/b", "a name that can be a folder's"),
        ("name", ".", "a name that can be a folder's"),
        ("name", "字" * 60, "at most 120 bytes"),
        ("name", 2024, "in quotes"),
        ("model_name", "a:b", "a name"),
        ("data", "", "text"),
        ("data", None, "text"),
        ("name", b"", "text"),
        ("data", "a\0b", "text"),
        ("ledger", "study.db", "postgresql://"),
        ("storage", "s3://bucket/runs", "a folder that the driver and all nodes see"),
        ("tracking_uri", "./mlruns", "http://HOST:5000"),
        ("gpus_per_trial", 1.5, "a fraction up to 1, or a whole number"),
        ("cpus_per_trial", 0, "more than 0"),
        ("cpus_per_trial", float("inf"), "a number"),
        ("skip_bad_images", "perhaps", "true or false"),
        ("validation_fraction", 0.6, "at most 0.5"),
    ],
)
def test_a_message_names_the_option_what_was_expected_and_what_was_received(
    key: str, value: Any, expected: str
) -> None:
    words = refusal(**{key: value})
    assert words.startswith(f"{key}: expected ")
    assert expected in words
    assert ", received " in words
    assert "pydantic" not in words


def test_a_message_lists_all_problems() -> None:
    words = refusal(trials=0, epochs="x", sampler="y")
    assert [line.partition(":")[0] for line in words.splitlines()] == ["trials", "epochs", "sampler"]


def test_an_unknown_key_gets_a_suggestion_and_the_valid_keys() -> None:
    words = refusal(trails=3)
    assert "trails: unknown key (did you mean 'trials'?)" in words
    assert "baseline_trials" in words


def test_fractions_must_leave_training_images() -> None:
    assert "0.5 + 0.5" in refusal(validation_fraction=0.5, test_fraction=0.5)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("30m", 1800),
        ("2h", 7200),
        ("90s", 90),
        ("1h30m", 5400),
        ("1h 30min", 5400),
        ("1.5h", 5400),
        (45, 45),
        ("45", 45),
    ],
)
def test_time_budget_accepts_text_and_numbers(value: Any, seconds: float) -> None:
    assert SearchConfig(time_budget=value).time_budget == seconds


@pytest.mark.parametrize("word", ["", "s", "m30", "1h30", "-5m", "1m1h", "inf", "nan", "1e9h", "９ｍ"])
def test_other_text_is_not_a_duration(word: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_duration(word)


@given(st.floats(min_value=0, max_value=1e8))
def test_a_duration_is_shown_in_at_most_two_units(seconds: float) -> None:
    assert 1 <= len(format_duration(seconds).split()) <= 2


def test_paths_may_be_path_objects_and_begin_with_a_tilde(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/字")
    config = SearchConfig(data=Path("my images"), storage="~/runs")  # type: ignore[arg-type]
    assert (config.data, config.storage) == ("my images", "/home/字/runs")


def test_none_is_accepted_where_none_is_a_valid_name() -> None:
    config = SearchConfig(scheduler=None, weights=None)  # type: ignore[arg-type]
    assert (config.scheduler, config.weights) == ("none", "none")


def test_register_is_an_alias_of_register_model() -> None:
    assert SearchConfig.model_validate({"register": False}).register_model is False
    assert SearchConfig(register_model=False).register_model is False


def test_a_copy_is_checked_too() -> None:
    assert SearchConfig(trials=3).replace(epochs=7).trials == 3
    with pytest.raises(UsageError, match="epochs"):
        SearchConfig().replace(epochs=0)


def test_a_baseline_has_as_many_trials_as_the_search_by_default() -> None:
    assert SearchConfig(trials=7).planned_baseline_trials == 7
    assert SearchConfig(trials=7, baseline_trials=0).planned_baseline_trials == 0
    assert SearchConfig(method="scratch").planned_baseline_trials == 0


def test_a_config_survives_a_round_trip_through_json() -> None:
    config = SearchConfig(time_budget="30m", name="größe 字", gpus_per_trial=0.25, register=False)
    assert SearchConfig.model_validate_json(config.model_dump_json()) == config


def test_flags_override_the_config_file(weird_folder: Path) -> None:
    file = written(weird_folder, "trials: 3\nepochs: 5\nregister: false\ntime_budget: 1h30m\nname: grün 字\n")
    config = load_config(file, {"epochs": "9"})
    assert (config.trials, config.epochs, config.register_model) == (3, 9, False)
    assert (config.time_budget, config.name) == (5400, "grün 字")


def test_messages_name_the_file_or_the_flag(tmp_path: Path) -> None:
    file = written(tmp_path, "trials: 0\nepochs: 5\n")
    with pytest.raises(UsageError) as caught:
        load_config(file, {"epochs": "0", "batch_size": "x"})
    assert f"{file}: trials: expected" in str(caught.value)
    assert "\n--epochs: expected" in str(caught.value)
    assert "\n--batch-size: expected" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "the file is empty"),
        ("# only a comment\n", "the file is empty"),
        ("- a\n- b\n", "received a list"),
        ("just words", "received a str"),
        ("trials: 3\ntrials: 4\n", "line 2, column 1: key 'trials' is given twice"),
        ("trials: [1\n", "not valid YAML: line 2"),
        ("trials: 3\n\tepochs: 4\n", "not valid YAML: line 2"),
        ("1: 2\n", "expected words as keys, received 1"),
        ("? [a]\n: 2\n", "a key must be a word"),
        ("!!python/object/apply:os.system ['true']\n", "not valid YAML"),
        (b"name: gr\xfcn\n", "expected UTF-8 text; byte 8 is not"),
        ("name: grün\n".encode("utf-16"), "expected UTF-8 text"),
        ("a: &a [*a]\n", "recursive"),
        ("[" * 5000, "received a deep nest"),
        ("trials: " + "9" * 5000, "expected a whole number of at most 4,300 digits"),
        (b"x" * 1_000_001, "at most 100 kB"),
        (b"a: \x00", "not valid YAML"),
    ],
)
def test_an_invalid_config_file_is_named_with_the_reason(
    tmp_path: Path, content: str | bytes, words: str
) -> None:
    file = written(tmp_path, content)
    with pytest.raises(UsageError) as caught:
        load_config(file)
    assert str(file) in str(caught.value)
    assert words in str(caught.value)


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        load_config(tmp_path / "none.yaml")
    with pytest.raises(UsageError, match="it is a folder"):
        load_config(tmp_path)
    with pytest.raises(UsageError, match="can't be read"):
        load_config("a\0b")


def test_numbers_and_text_in_a_file_are_read_as_yaml_1_2(tmp_path: Path) -> None:
    file = written(
        tmp_path, "test_fraction: 1e-1\nname: no\nscheduler: none\nmodel_name: 2024-05-01\nseed: 010\n"
    )
    config = load_config(file)
    assert (config.test_fraction, config.name, config.scheduler) == (0.1, "no", "none")
    assert (config.model_name, config.seed) == ("2024-05-01", 10)


def test_a_path_relative_to_the_config_file_is_refused_with_an_explanation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "my project"
    (project / "images").mkdir(parents=True)
    file = written(project, "data: ./images\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="data: expected a path relative to the working directory"):
        load_config(file)
    monkeypatch.chdir(project)
    assert load_config("config.yaml").data == "./images"


def test_file_flags_and_keyword_arguments_give_the_same_config(tmp_path: Path) -> None:
    file = written(tmp_path, "trials: 4\nsampler: random\ngpus_per_trial: 0.5\n")
    flags = {"trials": "4", "sampler": "random", "gpus_per_trial": "0.5"}
    assert (
        load_config(file)
        == load_config(None, flags)
        == SearchConfig(trials=4, sampler="random", gpus_per_trial=0.5)
    )


keys = st.sampled_from([*SearchConfig.model_fields, "register", "trails"])
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.dates(),
    st.binary(max_size=5),
    st.sampled_from(["tpe", "none", "30m", "core", "a.yaml", "1e-3", "http://x", "~"]),
)
values = st.recursive(
    scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=3), v, max_size=3)
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(keys | st.text(max_size=8), values, max_size=5))
def test_any_values_are_accepted_or_refused_with_a_message(content: dict[str, Any]) -> None:
    words = words_of(lambda: SearchConfig.model_validate(content))
    assert words is None or "received" in words or "unknown key" in words


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=200)
    | st.text(max_size=200).map(str.encode)
    | st.builds(yaml.safe_dump, values).map(str.encode)
)
def test_any_file_is_accepted_or_refused_with_a_message(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    file = tmp_path_factory.getbasetemp() / "fuzzed.yaml"
    file.write_bytes(content)
    words = words_of(lambda: load_config(file))
    assert words is None or str(file) in words


def test_every_sampler_and_scheduler_name_has_an_implementation() -> None:
    from search.execution.schedulers import make_scheduler
    from search.ledger.sampling.samplers import make_sampler

    for name in SAMPLERS:
        assert make_sampler(name, seed=0) is not None
    for name in SCHEDULERS:
        make_scheduler(name, "val_accuracy", "maximize")


def test_retries_and_timeout_of_trials_are_options() -> None:
    assert (SearchConfig().max_retries, SearchConfig().trial_timeout) == (2, None)
    config = SearchConfig(max_retries=0, trial_timeout="1h30m")  # type: ignore[arg-type]
    assert (config.max_retries, config.trial_timeout) == (0, 5400.0)
    assert "max_retries: expected" in str(words_of(lambda: SearchConfig(max_retries=-1)))
    assert "trial_timeout: expected a length of time" in str(words_of(lambda: SearchConfig(trial_timeout=0)))


@pytest.mark.slow
def test_every_method_name_has_an_implementation() -> None:
    from trainables.methods import methods

    assert set(METHODS) == set(methods.METHODS)


def test_environment_variables_are_used_for_options_that_are_not_given(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("UNFREEZE_STORAGE", "/mnt/shared runs")
    monkeypatch.setenv("UNFREEZE_TRACKING_URI", "http://localhost:5000")
    monkeypatch.setenv("UNFREEZE_LEDGER", "")
    file = written(tmp_path, "storage: from the file")
    assert load_config().storage == "/mnt/shared runs"
    assert load_config(file).storage == "from the file"
    assert load_config(file, {"storage": "from a flag"}).storage == "from a flag"
    assert load_config(file).tracking_uri == "http://localhost:5000"
    assert load_config().ledger is None
    assert SearchConfig().storage == "./unfreeze-runs"
    monkeypatch.setenv("UNFREEZE_LEDGER", "no address")
    assert "UNFREEZE_LEDGER: " in (words_of(load_config) or "")


def test_commands_that_read_a_search_use_the_environment_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    from search.commands import status

    monkeypatch.setenv("UNFREEZE_STORAGE", "/mnt/shared runs")
    assert status.parser().parse(["a"]).storage == "/mnt/shared runs"
    assert status.parser().parse(["a", "--storage", "other"]).storage == "other"
