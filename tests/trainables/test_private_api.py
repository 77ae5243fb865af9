"""Which versions of a dependency are accepted by code that uses its private API."""

from __future__ import annotations

from typing import Any

import pytest

from trainables.errors import BackboneError, SearchError
from trainables.private_api import expect_private_api, missing_parameters


def expect(installed: str, missing: list[str]) -> None:
    expect_private_api("optuna", ("5.0.0", "5.1.0"), "writes the ledger", missing, installed)


@pytest.mark.parametrize("installed", ["5.0.0", "5.1.0", "5.9.2"])
def test_a_version_that_has_everything_is_accepted(installed: str) -> None:
    expect(installed, [])


@pytest.mark.parametrize(("installed", "missing"), [("5.1.0", ["models.TrialModel"]), ("6.0.0", [])])
def test_a_version_that_differs_is_refused_with_the_versions_and_the_command_that_helps(
    installed: str, missing: list[str]
) -> None:
    with pytest.raises(SearchError) as refused:
        expect(installed, missing)
    message = str(refused.value)
    assert f"expected one of the versions 5.0.0, 5.1.0, received {installed}" in message
    assert "unfreeze writes the ledger" in message
    assert all(name in message for name in missing)
    assert message.endswith("pip install 'optuna==5.1.0'")


def test_the_installed_version_is_read_from_the_package() -> None:
    import optuna

    with pytest.raises(SearchError, match=f"received {optuna.__version__}"):
        expect_private_api("optuna", ("0.1",), "writes the ledger", [])


def test_the_caller_chooses_the_class_of_the_error() -> None:
    with pytest.raises(BackboneError, match=r"keras: .*received 4\.0"):
        expect_private_api("keras", ("3.15.1",), "cuts backbones", [], "4.0", BackboneError)


def test_a_function_may_gain_optional_parameters_only() -> None:
    def same(self: Any, study: Any, trial: Any) -> None: ...
    def longer(self: Any, study: Any, trial: Any, more: int = 0) -> None: ...
    def shorter(self: Any, study: Any) -> None: ...
    def stricter(self: Any, study: Any, trial: Any, more: int) -> None: ...

    assert missing_parameters(same, "f", "study", "trial") == []
    assert missing_parameters(longer, "f", "study", "trial") == []
    assert missing_parameters(shorter, "f", "study", "trial") == ["f(trial)"]
    assert missing_parameters(stricter, "f", "study", "trial") == ["f without more"]
    assert missing_parameters(None, "f", "study") == ["f"]
