"""Test that wrong config, space and enqueue files are quickly refused with a short message, or understood."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from search.config.config_file import load_config
from search.config.enqueue import read_enqueue
from search.config.search_config import SearchConfig
from search.config.space import full_space, load_space
from trainables.errors import UsageError

Read = Callable[[Path], object]

READERS: dict[str, Read] = {
    "config.yaml": load_config,
    "space.yaml": lambda file: load_space(file, 3),
    "first.jsonl": lambda file: read_enqueue(file, full_space(3)),
}
SECONDS = 10
"""Limit of processor seconds. No input of the accepted size takes as long."""

LONGEST = 4000
"""Maximum length of a message that a person still reads."""

QUICK = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
THOROUGH = settings(QUICK, max_examples=int(os.environ.get("UNFREEZE_FUZZ_EXAMPLES", "1000")))


def refusal(name: str, content: bytes, folder: Path) -> str | None:
    """The message with which ``content`` is refused as the file ``name``, or None. Other exceptions propagate."""
    file = folder / name
    file.write_bytes(content)
    began = time.process_time()
    try:
        READERS[name](file)
    except UsageError as error:
        words = str(error)
        assert str(file) in words
        assert len(words) < LONGEST
        assert all(letter.isprintable() or letter == "\n" for letter in words)
        return words
    finally:
        assert time.process_time() - began < SECONDS
    return None


def bomb() -> str:
    """A YAML file in which each line refers to the previous one ten times."""
    keys = ("name", "data", "trials", "seed", "epochs", "ledger", "space", "weights")
    lines = [f"{key}: &{key} [{', '.join([f'*{before}'] * 10)}]" for before, key in pairwise(keys)]
    return "\n".join([f"name: &name [{', '.join('x' * 10)}]", *lines])


YAML_FILES = {
    "nothing": b"",
    "a comment": b"# nothing else",
    "a list": b"- data: digits",
    "a word": b"digits",
    "two documents": b"data: a\n---\ndata: b",
    "a tab": b"\tdata: a",
    "tabs after the key": b"data:\t\ta\n\tseed: 1",
    "UTF-16": "data: a".encode("utf-16"),
    "Latin 1": "data: ü".encode("latin-1"),
    "a zero byte": b"data: a\0b",
    "a bell": b'data: "\x07"',
    "the same key twice": b"trials: 2\ntrials: 3",
    "both words for one key": b"register: true\nregister_model: false",
    "a number as a key": b"1: 2",
    "nothing as a key": b"~: 2",
    "half a letter as a key": b'"\\ud800": 2',
    "a list as a key": b"? [a, b]\n: 2",
    "a long key": b"? " + b"k" * 90_000 + b"\n: 2",
    "a key that paints the terminal red": b'"\\e[31m\\r\\n": 2',
    "an object": b'data: !!python/object/apply:os.system ["echo no"]',
    "a tag of its own": b"data: !mine a",
    "a long tag": b"data: !" + b"a" * 90_000,
    "a time that is none": b"data: !!timestamp soon",
    "a time before time": b"data: !!timestamp 0001-01-01T00:00:00+23:00",
    "a boolean that is none": b"trials: !!bool maybe",
    "a float that is none": b'trials: !!float ""',
    "an integer that is none": b'trials: !!int ""',
    "bytes": b"data: !!binary aGVsbG8=",
    "a set": b"data: !!set {a, b}",
    "a letter beyond Unicode": b'data: "\\U00110000"',
    "half a letter": b'name: "\\ud800"',
    "half a letter in a path": b'data: "\\ud800"',
    "a zero byte in a path": b'data: "a\\0b"',
    "a path that is too long": b"data: " + b"a/" * 3000,
    "a file name that is too long": b"backbone: " + b"a" * 300,
    "not a number": b"cpus_per_trial: .nan",
    "infinity": b"cpus_per_trial: 1e400",
    "a large number": b"trials: " + b"9" * 400,
    "a number of too many digits": b"trials: " + b"9" * 5000,
    "a boolean for a number": b"trials: true",
    "a number for text": b"data: 3",
    "a list for text": b"data: [a, b]",
    "blanks in a time": b'time_budget: "1d' + b" " * 50_000 + b'x"',
    "aliases of aliases": bomb().encode(),
    "an alias of itself": b"data: &a [*a]",
    "an unknown alias": b"data: *a",
    "merged aliases": b"data: &a {x: 1}\nname: {<<: *a}",
    "brackets in brackets": b"data: " + b"[" * 50_000,
    "blocks in blocks": b"\n".join(b" " * depth + b"a:" for depth in range(400)),
    "thousands of keys": b"\n".join(b"k%d: 1" % number for number in range(9_000)),
    "thousands of values": b"data: [" + b"1," * 45_000 + b"]",
    "a scalar of 100 MB": b"data: " + b"a" * 100_000_000,
}


@pytest.mark.parametrize("name", ["config.yaml", "space.yaml"])
@pytest.mark.parametrize("kind", YAML_FILES)
def test_a_wrong_yaml_file_is_refused_with_a_short_message(kind: str, name: str, weird_folder: Path) -> None:
    assert refusal(name, YAML_FILES[kind], weird_folder)


def test_what_follows_from_a_byte_order_mark_is_read(weird_folder: Path) -> None:
    file = weird_folder / "marked.yaml"
    file.write_bytes(b"\xef\xbb\xbfdata: a")
    assert load_config(file).data == "a"


JSON_LINES = {
    "nothing": "",
    "blank lines": "\n" * 900_000,
    "a broken line": '{"dropout": 0.1}\n{"dropout": 0.1',
    "a list": '["dropout", 0.1]',
    "nothing in it": "{}",
    "something after it": '{"dropout": 0.1} {"dropout": 0.2}',
    "out of range": '{"dropout": 0.9}',
    "between the steps": '{"head_units": 63}',
    "an unknown name": '{"drop_out": 0.1}',
    "a name that paints the terminal red": '{"\\u001b[31m\\n": 1}',
    "half a letter": '{"\\ud800": 1}',
    "a long name": json.dumps({"k" * 900_000: 1}),
    "a boolean for a number": '{"head_units": true}',
    "a number for a boolean": '{"horizontal_flip": 1}',
    "text for a number": '{"dropout": "0.1"}',
    "null": '{"dropout": null}',
    "infinity": '{"dropout": 1e400}',
    "Infinity": '{"dropout": -Infinity}',
    "not a number": '{"dropout": NaN}',
    "a large number": '{"head_units": 1' + "0" * 400 + "}",
    "a number of too many digits": '{"head_units": ' + "9" * 5000 + "}",
    "the same name thousands of times": "{" + ", ".join(['"dropout": 0.1'] * 60_000) + "}",
    "thousands of names": "{" + ", ".join(f'"k{number}": 1' for number in range(60_000)) + "}",
    "objects in objects": '{"dropout": ' * 50_000,
    "a dependence alone": '{"backbone_lr_ratio": 0.5}',
    "another line break": '{"dropout": 0.1}\u2028{"dropout": 0.2}',
    "a zero byte": '{"dropout": 0.1}\0',
}


@pytest.mark.parametrize("kind", JSON_LINES)
def test_a_wrong_enqueue_file_is_refused_with_a_short_message(kind: str, weird_folder: Path) -> None:
    assert refusal("first.jsonl", JSON_LINES[kind].encode(), weird_folder)


def test_thousands_of_configurations_are_read_in_seconds(weird_folder: Path) -> None:
    assert refusal("first.jsonl", b'{"dropout": 0.1}\n' * 20_000, weird_folder) is None


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ("dropout: {low: 0, high: 0.5, step: 1.0e-300}", "at most 1,000,000 steps"),
        ("dropout: {low: 0.1, high: 0.5, step: 5.0e-324}", "at most 1,000,000 steps"),
        ("head_units: {low: 0, high: 64, step: 1000000000000000}", "whole steps"),
        ("dropout: {low: 0, high: 0.5, step: 1.0e+15}", "whole steps"),
        ("dropout: [" + "0.1, " * 5000 + "0.1]", "expected different values, received [0.1, 0.1"),
    ],
)
def test_meaningless_ranges_are_refused(values: str, words: str, weird_folder: Path) -> None:
    assert words in str(refusal("space.yaml", values.encode(), weird_folder))


def test_values_that_a_choice_refuses_are_not_all_listed(weird_folder: Path) -> None:
    file = weird_folder / "many.yaml"
    file.write_text(f"head_units: {list(range(5000))}")
    with pytest.raises(UsageError, match=r"one of 0, 1, .* and 4,990 more, received 7000"):
        load_space(file, 3).check({"head_units": 7000})


plain = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(10**30), 10**30),
    st.floats(),
    st.text(max_size=30),
    st.sampled_from(["1e-3", "30m", "core", "a/b.yaml", "~", "~x/y", "..", "digits", "\ud800", "\0"]),
)
nested = st.recursive(
    plain,
    lambda v: st.lists(v, max_size=4) | st.dictionaries(st.text(max_size=5), v, max_size=4),
    max_leaves=12,
)
names = st.sampled_from([*SearchConfig.model_fields, *full_space(3).ranges, "register", "low", "step"])
ranges = st.fixed_dictionaries({}, optional=dict.fromkeys(("low", "high", "step", "log"), plain))
contents = st.dictionaries(names | st.text(max_size=10), nested | ranges, max_size=6)
signs = [
    ": ",
    "\n",
    "\n  ",
    "- ",
    "[",
    "]",
    "{",
    "}",
    ", ",
    "&a ",
    "*a",
    "? ",
    "| ",
    ">\n",
    "'",
    '"',
    "#",
    "%",
]
tags = [
    "!!int ",
    "!!float ",
    "!!map ",
    "<<: *a",
    "---\n",
    "\t",
    "\0",
    "\\",
    "\x85",
    "\u202e",
    "\ufeff",
    '"\\ud800"',
]
words = ["dropout", "trials", "data", "low", "true", "1e400", "0x1F", "~", "ü字", "e\u0301", "9" * 30]
pieces = st.lists(st.sampled_from([*signs, *tags, *words]), max_size=25).map("".join)
files = st.one_of(
    st.binary(max_size=200),
    pieces.map(lambda text: text.encode("utf-8", "surrogatepass")),
    contents.map(lambda value: json.dumps(value).encode()),
    contents.map(lambda value: yaml.safe_dump(value, allow_unicode=True).encode("utf-8", "surrogatepass")),
)


@pytest.mark.parametrize("name", READERS)
@QUICK
@given(content=files)
def test_any_file_is_accepted_or_refused_with_a_message(
    name: str, content: bytes, weird_folder: Path
) -> None:
    refusal(name, content, weird_folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
@THOROUGH
@given(content=files)
def test_thousands_of_files_are_accepted_or_refused_with_a_message(
    name: str, content: bytes, weird_folder: Path
) -> None:
    refusal(name, content, weird_folder)
