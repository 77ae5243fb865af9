"""Read the configuration of a search from a YAML file, command-line flags and environment variables."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from search.config.environment import OPTION_VARIABLES, options_from_environment
from search.config.option_types import option_of
from search.config.search_config import SearchConfig
from search.config.strict_yaml import read_mapping
from search.config.validation_errors import quote_key
from trainables.errors import UsageError


def load_config(path: str | Path | None = None, flags: Mapping[str, object] | None = None) -> SearchConfig:
    """Return the configuration that a YAML file, flags and the environment give together.

    A flag overrides the file, and the file overrides the environment. Paths in the file mean what they mean on the
    command line: they are relative to the working directory, not to the file.

    Args:
        path: YAML file with the options as keys; None for no file.
        flags: options of the command line by the field's name.

    Raises:
        UsageError: a value is wrong; the message names the file's key, the flag or the variable.
    """
    overrides = dict(flags or {})
    content: dict[str, Any] = {} if path is None else read_mapping(Path(path), "config file")
    # register is the alias of register_model. If a file holds both, pydantic would silently ignore one of them.
    if "register" in content:
        if "register_model" in content:
            raise UsageError(f"{path}: register: expected once, received register_model, too")
        content["register_model"] = content.pop("register")
    _check_relative_paths(path, content)
    for key, other in (("metric", "objective"), ("objective", "metric")):
        if key in overrides and other not in overrides:
            content.pop(other, None)  # both name what is optimised, and a flag overrides the file
    environment = options_from_environment()
    labels = {key: OPTION_VARIABLES[key] for key in environment}
    labels.update({key: f"{path}: {quote_key(key)}" for key in content})
    labels.update({key: "--" + key.replace("_", "-") for key in overrides})
    return SearchConfig.model_validate({**environment, **content, **overrides}, context=labels)


def _check_relative_paths(path: str | Path | None, content: Mapping[str, object]) -> None:
    """Refuse a path that exists relative to the file but not relative to the working directory.

    Readers of a YAML file often expect the former; the message shows both ways to write it.
    """
    if path is None:
        return
    for key, field in SearchConfig.model_fields.items():
        held = content.get(key) if option_of(field).input_path else None
        for value in held if isinstance(held, list) else [held]:
            # A word without separator and suffix, such as MobileNetV2, is a name rather than a path.
            if not isinstance(value, str) or not (os.sep in value or Path(value).suffix):
                continue
            from_file = Path(path).parent / value
            if _exists(from_file) and not _exists(Path(value)):
                raise UsageError(
                    f"{path}: {key}: expected a path relative to the working directory ({Path.cwd()}), received "
                    f"{value!r}, which exists relative to the config file: write {str(from_file)!r}, or run from "
                    f"{str(Path(path).parent)!r}"
                )


def _exists(path: Path) -> bool:
    try:
        return path.expanduser().exists()
    except (OSError, ValueError, RuntimeError):  # too long, a null byte, or a home that does not exist
        return False
