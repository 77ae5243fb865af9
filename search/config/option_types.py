"""The types of the fields of :class:`~search.config.search_config.SearchConfig`, and what the options show of them.

A type checks and converts a value. It raises ValueError with a text that begins with what was expected;
:mod:`search.config.validation_errors` adds the option's name and the value that was received. An :class:`Option` in the
``Annotated`` type of a field holds what the command line and the docs need besides the field's default and description.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, GetCoreSchemaHandler
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from search.config.choices import did_you_mean
from search.config.parameters import SPACES
from search.records.metrics import EPOCH_METRICS
from search.records.units import parse_duration, parse_size
from trainables.reuse import REUSABLE_PARTS

GROUPS: Mapping[str, str] = {
    "data": "What the search learns from, and how it is split.",
    "backbone": "The pretrained network that is fine-tuned, and the teacher if there is one.",
    "trials": "What is tried, what is optimised, and when the search stops.",
    "winner": "How the best configuration is confirmed, compared and registered.",
    "storage": "Where the search keeps its files, its ledger and its MLflow runs.",
    "resources": "What trials may use of the machines, and what happens when one crashes or hangs.",
    "reuse": "What trials reuse from each other to save time.",
}
"""The headings of the help page, in its order, each with a sentence for the docs."""

_YAML_WORDS: Mapping[object, str] = {None: "none", True: "on", False: "off"}
"""What YAML values mean where a name is expected: people write ``scheduler: null`` and Python programs ``jit=True``."""

_MAX_PATH_BYTES, _MAX_NAME_BYTES = 4095, 255
"""The longest path, and the longest name in a path, that Linux and macOS accept."""

_NOT_IN_FOLDER_NAMES = re.compile(r'[\x00-\x1f\x7f\ud800-\udfff/\\:*?"<>|]')
_URL_SCHEME = r"[A-Za-z][A-Za-z0-9+.\-]"


@dataclass(frozen=True)
class Option:
    """What help and docs show of a field of SearchConfig, besides its default and description.

    As metadata of the field's type it also checks the value, if there are ``choices``.

    Attributes:
        group: heading under which the option is listed, a key of :data:`GROUPS`.
        metavar: what stands for the value in help and docs; with ``choices`` their names.
        choices: the valid names, each with its description.
        repeatable: whether the option may be given more than once, and a YAML file may hold a list.
        unset: what applies if the option is not given and its default is None.
        input_path: whether the value may be the path of a file or folder that the search reads.
    """

    group: str
    metavar: str = ""
    choices: Mapping[str, str] | None = None
    repeatable: bool = False
    unset: str = ""
    input_path: bool = False

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Let pydantic call :meth:`check` before the other checks of the type."""
        schema = handler(source)
        return core_schema.no_info_before_validator_function(self.check, schema) if self.choices else schema

    def check(self, value: object) -> object:
        """Return the valid name that ``value`` stands for, or the list of them if the option is repeatable.

        Raises:
            ValueError: a name is not valid.
        """
        if not self.repeatable:
            return check_name(value, self.choices or ())
        words = value if isinstance(value, list | tuple) else [] if value is None else [value]
        return [check_name(word, self.choices or ()) for word in words]


def option_of(field: FieldInfo) -> Option:
    """Return the :class:`Option` in the type of a field of SearchConfig.

    Raises:
        TypeError: there is none.
    """
    for rule in field.metadata:
        if isinstance(rule, Option):
            return rule
    raise TypeError(f"expected Annotated[..., Option(...)] as the type of the field, received {field!r}")


def check_name(value: object, names: Iterable[str]) -> str:
    """Return the one of ``names`` that ``value`` stands for, whatever its case and surrounding spaces.

    Raises:
        ValueError: there is none; the message lists the valid names.
    """
    valid = list(names)
    word = _YAML_WORDS.get(value) if isinstance(value, bool | None) else value
    if isinstance(word, str) and word.strip().lower() in valid:
        return word.strip().lower()
    hint = did_you_mean(value, valid) if isinstance(value, str) else ""
    raise ValueError(f"expected one of {', '.join(valid)}{hint}")


def _not_a_boolean(value: object) -> object:
    # A boolean is an int in Python: without this check, trials=True would mean one trial.
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
        names = [os.fsencode(name) for name in Path(path).parts]
        fits = len(os.fsencode(path)) <= _MAX_PATH_BYTES and all(len(n) <= _MAX_NAME_BYTES for n in names)
    except UnicodeEncodeError:
        fits = False
    if not fits:
        raise ValueError("expected a path that a file can have, of at most 255 bytes a name and 4,095 in all")
    return path


def _backbones(value: object) -> str | tuple[str, ...]:
    """Return one backbone as text and several as a tuple; a list of one is that one."""
    if not isinstance(value, list | tuple):
        return _expand_home(_as_text(value))
    names = tuple(_expand_home(_as_text(each)) for each in value)
    twice = [name for name in names if names.count(name) > 1]
    if not names or twice:
        raise ValueError(f"expected {'each backbone once' if twice else 'at least one backbone'}")
    return names[0] if len(names) == 1 else names


def _search_names(value: object) -> tuple[str, ...] | None:
    """Return the names of searches without repetitions; a single one need not be in a list."""
    names = value if isinstance(value, list | tuple) else [value]
    found = tuple(dict.fromkeys(_folder_name(_as_text(each)) for each in names))
    return found or None


def _space(value: str) -> str:
    if value.lower() in SPACES:
        return value.lower()
    if Path(value).suffix.lower() in (".yaml", ".yml"):
        return value
    raise ValueError(
        f"expected {', '.join(SPACES)} or a file that ends in .yaml or .yml{did_you_mean(value, SPACES)}"
    )


def _storage(value: str) -> str:
    if re.match(rf"{_URL_SCHEME}+:/", value):
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
    unsafe = _NOT_IN_FOLDER_NAMES.search(value) or value != value.strip() or value[0] in ".-~"
    # 120 bytes leave room for what is appended to a name within the 255 of a file system.
    if unsafe or len(value.encode()) > 120:
        raise ValueError(
            "expected a name that can be a folder's: at most 120 bytes, none of / \\ : * ? \" < > |, "
            "no space at its ends, no . - or ~ in front"
        )
    return value


def _url(value: str) -> str:
    # MLflow accepts the word databricks in place of a URL.
    if not re.match(rf"{_URL_SCHEME}*://?\S", value) and value != "databricks":
        raise ValueError(
            "expected a URL such as http://HOST:5000, postgresql://USER@HOST/DATABASE "
            "or sqlite:///PATH/FILE.db"
        )
    return value


def _reuse(value: object) -> str:
    """Return ``all``, ``none``, or names in their usual order; a YAML file may hold them as a list."""
    words = (
        value if isinstance(value, list | tuple) else "none" if value is None else _as_text(value).split(",")
    )
    names = [word.strip().lower() for word in words if isinstance(word, str) and word.strip()]
    if names in (["all"], ["none"]):
        return names[0]
    for name in names:
        if name not in REUSABLE_PARTS:
            raise ValueError(
                f"expected all, none, or some of {','.join(REUSABLE_PARTS)}{did_you_mean(name, REUSABLE_PARTS)}"
            )
    return ",".join(part for part in REUSABLE_PARTS if part in names) or "none"


def _cache(value: str) -> str:
    return "off" if value.strip().lower() == "off" else _expand_home(value)


def _false_means_off(value: object) -> object:
    return "off" if value is False else value


def _null_means_none(value: object) -> object:
    return "none" if value is None else value


def _objectives(value: object) -> tuple[str, ...] | None:
    """Return the objectives of a search with several, which :meth:`Option.check` has checked by name."""
    names = tuple(map(str, value)) if isinstance(value, list) else ()
    repeated = [name for index, name in enumerate(names) if name in names[:index]]
    if repeated:
        raise ValueError(f"expected each objective once; {repeated[0]} is given twice")
    if names and names[0] not in EPOCH_METRICS:
        raise ValueError(
            f"expected the first to be a metric of training ({', '.join(EPOCH_METRICS)}): schedulers stop "
            "trials by it, and the winner is the best in it"
        )
    return names or None


def _gpu_share(value: float) -> float:
    # Ray reserves either a fraction of one GPU, or whole GPUs.
    if value > 1 and value != int(value):
        raise ValueError("expected a fraction up to 1, or a whole number")
    return value


WholeNumber = Annotated[int, BeforeValidator(_not_a_boolean)]
Number = Annotated[float, BeforeValidator(_not_a_boolean)]
GpuShare = Annotated[Number, AfterValidator(_gpu_share)]
Text = Annotated[str, BeforeValidator(_as_text)]
PathText = Annotated[Text, AfterValidator(_expand_home)]
BackboneNames = Annotated[str | tuple[str, ...], BeforeValidator(_backbones)]
SearchNames = Annotated[tuple[str, ...], BeforeValidator(_search_names)]
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
ObjectiveNames = Annotated[tuple[str, ...] | None, BeforeValidator(_objectives)]
