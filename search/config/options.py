"""The options of ``unfreeze search`` as the command line and the docs show them, derived from SearchConfig.

This command writes the page; a test fails when the committed page is stale:

    python -m search.config.options > docs/options.md
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from search.config.choices import METHODS
from search.config.environment import OPTION_VARIABLES, VARIABLES, ExitCode
from search.config.option_types import GROUPS, Option, option_of
from search.config.parameters import DEPTH, OLD_TASK_PARAMETERS, PARAMETERS
from search.config.search_config import SearchConfig


@dataclass(frozen=True)
class SearchOption:
    """One option of ``unfreeze search``.

    Attributes:
        name: name of the field of SearchConfig.
        flag: the option on the command line, such as ``--batch-size``.
        default: the field's default.
        description: the help text, without default and repetition.
        details: the Option in the field's type.
    """

    name: str
    flag: str
    default: Any
    description: str
    details: Option

    @property
    def is_switch(self) -> bool:
        """Whether the option takes no value, and has a form with ``--no-`` in front."""
        return isinstance(self.default, bool)

    @property
    def metavar(self) -> str:
        """What stands for the value in help and docs."""
        return "|".join(self.details.choices) if self.details.choices else self.details.metavar

    @property
    def unset(self) -> str:
        """What applies if the option is not given, or an empty string if nothing does."""
        if self.is_switch or self.default is None:
            return self.details.unset
        return str(self.default)

    def add_to(
        self,
        group: argparse._ArgumentGroup,
        repeatable: bool | None = None,
        description: str | None = None,
    ) -> None:
        """Add the option to a parser's group.

        Its value is not checked here but by SearchConfig, so that messages are the same for all ways to give it.

        Args:
            group: group of the help page.
            repeatable: overrides whether the option may be given more than once.
            description: overrides the help text, with the remark that the option may be repeated.
        """
        repeatable = self.details.repeatable if repeatable is None else repeatable
        text = self.description if description is None else description
        words = [f"{text.removesuffix('.')} (default: {self.unset})." if self.unset else text]
        if repeatable and description is None:
            words.append("May be given more than once.")
        described = " ".join(words).replace("%", "%%")  # argparse formats help texts with %
        # SUPPRESS leaves an option that is not given out of the namespace: the config file may hold it.
        if self.is_switch:
            group.add_argument(
                self.flag,
                dest=self.name,
                action=argparse.BooleanOptionalAction,
                default=argparse.SUPPRESS,
                help=described,
            )
            return
        group.add_argument(
            self.flag,
            dest=self.name,
            metavar=self.metavar,
            default=argparse.SUPPRESS,
            action="append" if repeatable else "store",
            help=described,
        )


def _search_option(name: str) -> SearchOption:
    field = SearchConfig.model_fields[name]
    flag = "--" + (field.alias or name).replace("_", "-")
    return SearchOption(name, flag, field.default, str(field.description), option_of(field))


SEARCH_OPTIONS = {name: _search_option(name) for name in SearchConfig.model_fields}
"""All options by field name."""


def options_of(group: str) -> list[SearchOption]:
    """Return the options under one heading of the help page, in the order of the fields."""
    return [option for option in SEARCH_OPTIONS.values() if option.details.group == group]


_INTRODUCTION = """\
<!-- Written by `python -m search.config.options > docs/options.md`; edit search/config/search_config.py instead. -->

# Options of `unfreeze search`

Look up here what an option does, which values it takes, and what applies if you leave it out. You can give an option on
the command line, in a YAML file, and in Python:

```sh
unfreeze search --data photos/ --backbone MobileNetV2 --trials 40
unfreeze search search.yaml --trials 80      # an option on the command line overrides the file
```

```yaml
# search.yaml: names of options with underscores
data: photos/
backbone: MobileNetV2
trials: 40
```

```python
from search import SearchConfig, run_search

run_search(SearchConfig(data="photos/", backbone="MobileNetV2", trials=40))
```

Paths are relative to the working directory, also in a file. Times are written as in `90s`, `30m` or `1h30m`, sizes as
in `500 MB`, `2 GB` or `1.5 GiB`. Options without a value have a negative form (`--no-register`; `false` in a file). An
option that may be given more than once takes a list in a file. `unfreeze COMMAND --help` describes the other commands.
"""


def options_page() -> str:
    """Return the page ``docs/options.md``."""
    parts = [_INTRODUCTION]
    for group, sentence in GROUPS.items():
        parts.append(f"## {group.capitalize()}\n\n{sentence}\n")
        parts.append(_table(("option", "default", "meaning"), map(_option_row, options_of(group))))
        for option in options_of(group):
            if option.details.choices:
                parts.append(f"Values of `{option.flag}`:\n")
                parts.append("".join(f"- `{n}`: {words}\n" for n, words in option.details.choices.items()))
    parts.append(
        "## Search space\n\nParameters of the built-in spaces. A YAML file for `--space` takes the same names; "
        "[`search/config/space_file.py`](../search/config/space_file.py) shows its syntax.\n"
    )
    parts.append(_table(("parameter", "values", "space", "used", "meaning"), _parameter_rows()))
    parts.append(
        "## Environment variables\n\nAn option overrides its variable. Empty variables count as unset.\n"
    )
    parts.append(_table(("variable", "meaning"), ((f"`{name}`", words) for name, words in VARIABLES.items())))
    parts.append("## Exit codes\n\nAll commands end with one of these codes.\n")
    parts.append(_table(("code", "meaning"), ((str(int(code)), code.description) for code in ExitCode)))
    return "\n".join(parts)


def _option_row(option: SearchOption) -> tuple[str, ...]:
    flag = f"`--[no-]{option.flag.removeprefix('--')}`" if option.is_switch else f"`{option.flag}`"
    value = "" if option.is_switch or option.details.choices else f" `{option.metavar}`"
    default = option.unset if option.default is None else f"`{option.unset}`"
    if option.is_switch:
        default = "on" if option.default else "off"
    words = option.description + (" May be given more than once." if option.details.repeatable else "")
    if option.name in OPTION_VARIABLES:
        words += f" Environment variable: `{OPTION_VARIABLES[option.name]}`."
    return flag + value, _mark_flags(default), _mark_flags(words)


def _mark_flags(words: str) -> str:
    """Return ``words`` with options marked as code, where they are not yet."""
    return re.sub(r"(?<![`\w-])(--[a-z][a-z-]*)", r"`\1`", words)


def _parameter_rows() -> Iterator[tuple[str, ...]]:
    for name, parameter in PARAMETERS.items():
        space = "core" if parameter.core else "full"
        values = "0 to the number of blocks" if name == DEPTH else str(parameter.range)
        yield f"`{name}`", values, space, _use(name), parameter.description


def _use(name: str) -> str:
    """Return under which methods and conditions trials have a parameter."""
    parameter, methods = PARAMETERS[name], PARAMETERS[name].methods
    excluded = [
        name
        for name, method in METHODS.items()
        if methods is not None and name not in methods and not method.reference
    ]
    if methods is None:
        words = ["always"]
    elif len(excluded) <= 2:
        words = [f"all methods but {' and '.join(f'`{method}`' for method in excluded)}"]
    else:
        words = [" and ".join(f"`{method}`" for method in methods)]
    if name in OLD_TASK_PARAMETERS:
        words[0] += " with `--remember`"
    return " if ".join([*words, parameter.condition] if parameter.when else words)


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [heads, ("---",) * len(heads), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


if __name__ == "__main__":
    print(options_page(), end="")
