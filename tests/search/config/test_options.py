"""The options of ``unfreeze search`` in help and docs, and the lists of valid names behind them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from search.commands import search as search_command
from search.config.choices import PREPROCESSING
from search.config.environment import OPTION_VARIABLES, VARIABLES, ExitCode
from search.config.option_types import GROUPS, Option, option_of
from search.config.options import SEARCH_OPTIONS, SearchOption, options_page
from search.config.search_config import SearchConfig
from trainables.modalities.image.applications import APPLICATIONS, PREPROCESSING_MODES
from trainables.training.trial_config import BATCH_NORM

ROOT = Path(__file__).parents[3]


def test_the_page_of_options_is_up_to_date() -> None:
    page = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
    assert page == options_page(), "run: python -m search.config.options > docs/options.md"


def test_the_page_names_every_option_choice_variable_and_exit_code() -> None:
    page = options_page()
    for option in SEARCH_OPTIONS.values():
        assert f"`{option.flag}`" in page or f"`--[no-]{option.flag[2:]}`" in page
        for choice in option.details.choices or ():
            assert f"- `{choice}`: " in page
    for variable in VARIABLES:
        assert f"| `{variable}` | " in page
    for code in ExitCode:
        assert f"| {int(code)} | " in page


@pytest.mark.parametrize("option", SEARCH_OPTIONS.values(), ids=lambda option: option.flag)
def test_every_option_has_a_group_a_metavar_and_a_help_text_in_sentences(option: SearchOption) -> None:
    assert option.details.group in GROUPS
    assert option.metavar or option.is_switch
    assert option.description[0].isupper()
    assert option.description.endswith(".")


def test_help_shows_description_default_and_choices() -> None:
    words = " ".join(search_command.parser().format_help().split())
    assert "--trials N Number of trials." in words
    assert "(default: 24)" in words
    assert "--scheduler asha|hyperband|median|none" in words
    assert "(default: as many as --trials)" in words


def test_an_option_that_may_be_repeated_says_so() -> None:
    words = " ".join(search_command.parser().format_help().split())
    assert words.count("May be given more than once.") == 3
    assert {n for n, o in SEARCH_OPTIONS.items() if o.details.repeatable} == {
        "backbone",
        "objective",
        "warm_start",
    }


def test_a_field_without_an_option_is_named() -> None:
    from pydantic.fields import FieldInfo

    with pytest.raises(TypeError, match=r"expected Annotated\[..., Option"):
        option_of(FieldInfo(annotation=int, default=3))


def test_choices_of_an_option_are_checked_in_any_case_and_as_yaml_words() -> None:
    option = Option("trials", choices={"on": "", "off": "", "none": ""})
    assert [option.check(value) for value in (" ON", True, False, None, "None")] == [
        "on",
        "on",
        "off",
        "none",
        "none",
    ]
    with pytest.raises(ValueError, match=r"expected one of on, off, none \(did you mean 'off'\?\)"):
        option.check("of")


def test_names_equal_those_that_trainables_implements() -> None:
    assert set(BATCH_NORM) == {"auto", "adapt", "frozen"}
    assert set(PREPROCESSING) == {"auto", "none", "tf", "torch", "caffe", "unit"}
    assert {application.preprocessing for application in APPLICATIONS.values()} <= set(PREPROCESSING_MODES)


def test_the_list_of_variables_holds_every_variable_that_the_code_reads() -> None:
    files = [*ROOT.glob("search/**/*.py"), *ROOT.glob("trainables/**/*.py")]
    used = {name for file in files for name in re.findall(r"\bUNFREEZE_[A-Z_]+\b", file.read_text("utf-8"))}
    assert used == set(VARIABLES)
    assert set(OPTION_VARIABLES.values()) <= set(VARIABLES)
    assert set(OPTION_VARIABLES) <= set(SearchConfig.model_fields)
