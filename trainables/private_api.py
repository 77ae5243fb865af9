"""Refuses an installed dependency whose private API is not the one that our code was written for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from inspect import Parameter, signature
from typing import Any

from trainables.errors import SearchError

TESTED_VERSIONS: Mapping[str, tuple[str, ...]] = {
    "keras": ("3.15.1",),
    "optuna": ("5.0.0",),
    "ray": ("2.60",),
    "tensorflow": ("2.21.0",),
}
"""Versions of the dependencies with which our use of their private API was tested, the oldest first."""


def expect_private_api(
    package: str,
    tested: Sequence[str],
    purpose: str,
    missing: Iterable[str],
    installed: str | None = None,
    refusal: type[SearchError] = SearchError,
) -> None:
    """Make sure that ``package`` still has the private API that the caller relies on.

    A minor version that was not tested is accepted as long as everything that the caller uses is there: private API
    changes rarely, and a user's upgrade should not stop a search without need. Another major version is refused.

    Args:
        package: the distribution, as pip names it.
        tested: the versions that the caller was tested with, the newest last.
        purpose: what the private API is used for, as a phrase that completes "unfreeze ...".
        missing: names that the caller needs and did not find.
        installed: the installed version; read from the package's metadata by default.
        refusal: the class of the error.

    Raises:
        SearchError: something is missing, or the major version is another one. The message states the installed and
            the tested versions and how to install a tested one. The error is a ``refusal``.
    """
    found = installed or version(package)
    absent = list(missing)
    if not absent and _major(found) in {_major(known) for known in tested}:
        return
    differs = f" Missing there: {', '.join(absent)}." if absent else ""
    raise refusal(
        f"{package}: expected one of the versions {', '.join(tested)}, received {found}. unfreeze {purpose}, with "
        f"private API of {package} that was tested with these versions only.{differs} Install a tested version: "
        f"pip install '{package}=={tested[-1]}'"
    )


def missing_parameters(function: Callable[..., Any] | None, name: str, *parameters: str) -> list[str]:
    """What of ``function`` a caller can't rely on: its ``name`` if there is none, else the parameters that it lacks.

    A new parameter without a default is reported too, because a call by the old signature would fail.
    """
    if function is None:
        return [name]
    known = signature(function).parameters
    lacking = [f"{name}({parameter})" for parameter in parameters if parameter not in known]
    required = [
        f"{name} without {parameter.name}"
        for parameter in known.values()
        if parameter.name not in ("self", *parameters)
        and parameter.default is Parameter.empty
        and parameter.kind
        in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    ]
    return lacking + required


def _major(found: str) -> str:
    return found.partition(".")[0]
