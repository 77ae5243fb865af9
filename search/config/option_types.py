"""The types of config values: what they accept, and in which words they refuse.

Every check raises ValueError with a text that begins with what was expected; `search.config.validation_errors` adds the
key and what came.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator
from pydantic_core import PydanticCustomError

from search.config.choices import (
    BATCH_NORM,
    JIT,
    METHOD_NAMES,
    PRECISION,
    PREPROCESSING,
    PRIOR,
    SAMPLERS,
    SCHEDULERS,
    SPACES,
    did_you_mean,
)
from search.records.metrics import EPOCH_METRIC_DIRECTIONS, OBJECTIVES
from search.records.units import parse_duration, parse_size
from trainables.reuse import REUSABLE_PARTS

_UNFIT = re.compile(r'[\x00-\x1f\x7f\ud800-\udfff/\\:*?"<>|]')


def _not_a_boolean(value: object) -> object:
    if isinstance(value, bool):
        raise PydanticCustomError("number_type", "expected a number")
    return value


def _as_text(value: object) -> str:
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, bool | int | float):
        raise ValueError("expected text; put the value in quotes if it is meant as text")
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise ValueError("expected text")
    return value


def _expand_home(value: str) -> str:
    path = str(Path(value).expanduser()) if value == "~" or value.startswith("~/") else value
    try:
        fits = len(os.fsencode(path)) <= 4095 and all(len(os.fsencode(n)) <= 255 for n in Path(path).parts)
    except UnicodeEncodeError:
        fits = False
    if not fits:
        raise ValueError("expected a path that a file can have, of at most 255 bytes a name and 4,095 in all")
    return path


def _backbones(value: object) -> str | tuple[str, ...]:
    """One backbone as text, several as a tuple: a list of one is that one."""
    if not isinstance(value, list | tuple):
        return _expand_home(_as_text(value))
    named = tuple(_expand_home(_as_text(each)) for each in value)
    twice = [name for name in named if named.count(name) > 1]
    if not named or twice:
        raise ValueError(f"expected {'each backbone once' if twice else 'at least one backbone'}")
    return named[0] if len(named) == 1 else named


def _several_names(value: object) -> tuple[str, ...] | None:
    """Names of searches; one may stand alone."""
    named = value if isinstance(value, list | tuple) else [value]
    found = tuple(dict.fromkeys(_folder_name(_as_text(each)) for each in named))
    return found or None


def _choice(names: Iterable[str]) -> Callable[[object], object]:
    valid = list(names)

    def check(value: object) -> object:
        word = "none" if value is None and "none" in valid else value
        if isinstance(word, str) and word.strip().lower() in valid:
            return word.strip().lower()
        hint = did_you_mean(word, valid) if isinstance(word, str) else ""
        raise ValueError(f"expected one of {', '.join(valid)}{hint}")

    return check


def _space(value: str) -> str:
    if value.lower() in SPACES:
        return value.lower()
    if Path(value).suffix.lower() in (".yaml", ".yml"):
        return value
    raise ValueError(
        f"expected {', '.join(SPACES)} or a file that ends in .yaml or .yml{did_you_mean(value, SPACES)}"
    )


def _storage(value: str) -> str:
    if re.match(r"[A-Za-z][A-Za-z0-9+.\-]+:/", value):
        raise ValueError(
            "expected a folder that the driver and all nodes see under one path, such as a mounted NFS share; object "
            "stores and URLs can hold neither ledger nor locks"
        )
    return value


def _jsonl(value: str) -> str:
    if Path(value).suffix.lower() not in (".jsonl", ".ndjson", ".json"):
        raise ValueError("expected a file that ends in .jsonl, one JSON object of parameters a line")
    return value


def _folder_name(value: str) -> str:
    if _UNFIT.search(value) or value != value.strip() or value[0] in ".-~" or len(value.encode()) > 120:
        raise ValueError(
            "expected a name that can be a folder's: at most 120 bytes, none of / \\ : * ? \" < > |, "
            "no space at its ends, no . - or ~ in front"
        )
    return value


def _url(value: str) -> str:
    if not re.match(r"[A-Za-z][A-Za-z0-9+.\-]*://?\S", value) and value != "databricks":
        raise ValueError(
            "expected a URL such as http://HOST:5000, postgresql://USER@HOST/DATABASE "
            "or sqlite:///PATH/FILE.db"
        )
    return value


def _reuse(value: object) -> str:
    """``all``, ``none``, or names in their usual order; a YAML file may hold them as a list."""
    words = (
        value if isinstance(value, list | tuple) else "none" if value is None else _as_text(value).split(",")
    )
    named = [word.strip().lower() for word in words if isinstance(word, str) and word.strip()]
    if named in (["all"], ["none"]):
        return named[0]
    for word in named:
        if word not in REUSABLE_PARTS:
            raise ValueError(
                f"expected all, none, or some of {','.join(REUSABLE_PARTS)}{did_you_mean(word, REUSABLE_PARTS)}"
            )
    return ",".join(part for part in REUSABLE_PARTS if part in named) or "none"


def _cache(value: str) -> str:
    return "off" if value.strip().lower() == "off" else _expand_home(value)


def _false_means_off(value: object) -> object:
    return "off" if value is False else value


def _boolean_means_on_or_off(value: object) -> object:
    """``on`` and ``off`` are booleans to YAML."""
    return "on" if value is True else _false_means_off(value)


def _null_means_none(value: object) -> object:
    return "none" if value is None else value


def _objectives(value: object) -> tuple[str, ...] | None:
    """Names of objectives; of one alone a YAML file may hold the name."""
    words = list(value) if isinstance(value, list | tuple) else [] if value is None else [value]
    named = tuple(str(_objective(word)) for word in words)
    doubled = [name for place, name in enumerate(named) if name in named[:place]]
    if doubled:
        raise ValueError(f"expected each objective once; {doubled[0]} is there twice")
    if named and named[0] not in EPOCH_METRIC_DIRECTIONS:
        raise ValueError(
            f"expected the first to be what training improves ({', '.join(EPOCH_METRIC_DIRECTIONS)}): "
            f"schedulers stop trials by it, "
            "and the winner is the best in it"
        )
    return named or None


def _gpu_share(value: float) -> float:
    if value > 1 and value != int(value):
        raise ValueError("expected a fraction up to 1, or a whole number")
    return value


_objective = _choice(OBJECTIVES)

WholeNumber = Annotated[int, BeforeValidator(_not_a_boolean)]
Number = Annotated[float, BeforeValidator(_not_a_boolean)]
GpuShare = Annotated[Number, AfterValidator(_gpu_share)]
Text = Annotated[str, BeforeValidator(_as_text)]
PathText = Annotated[Text, AfterValidator(_expand_home)]
BackboneNames = Annotated[str | tuple[str, ...], BeforeValidator(_backbones)]
SearchNames = Annotated[tuple[str, ...], BeforeValidator(_several_names)]
StorageText = Annotated[PathText, AfterValidator(_storage)]
Weights = Annotated[PathText, BeforeValidator(_null_means_none)]
SpaceText = Annotated[PathText, AfterValidator(_space)]
ReuseText = Annotated[str, BeforeValidator(_reuse)]
CacheText = Annotated[Text, AfterValidator(_cache), BeforeValidator(_false_means_off)]
ByteCount = Annotated[int, BeforeValidator(parse_size)]
JsonlText = Annotated[PathText, AfterValidator(_jsonl)]
FolderName = Annotated[Text, AfterValidator(_folder_name)]
Url = Annotated[Text, AfterValidator(_url)]
Duration = Annotated[float, BeforeValidator(parse_duration)]
MethodName = Annotated[str, BeforeValidator(_choice(METHOD_NAMES))]
SamplerName = Annotated[str, BeforeValidator(_choice(SAMPLERS))]
SchedulerName = Annotated[str, BeforeValidator(_choice(SCHEDULERS))]
PreprocessingName = Annotated[str, BeforeValidator(_choice(PREPROCESSING))]
PrecisionName = Annotated[str, BeforeValidator(_choice(PRECISION))]
JitName = Annotated[str, BeforeValidator(_choice(JIT)), BeforeValidator(_boolean_means_on_or_off)]
PriorName = Annotated[str, BeforeValidator(_choice(PRIOR)), BeforeValidator(_boolean_means_on_or_off)]
BatchNormName = Annotated[str, BeforeValidator(_choice(BATCH_NORM))]
MetricName = Annotated[str, BeforeValidator(_choice(EPOCH_METRIC_DIRECTIONS))]
ObjectiveNames = Annotated[tuple[str, ...] | None, BeforeValidator(_objectives)]
