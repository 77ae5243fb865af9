"""Argument parsers that raise UsageError, with a suggestion where one is near."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NoReturn

from search.config.choices import did_you_mean
from search.config.environment import options_from_environment
from search.config.validation_errors import format_key, format_value
from trainables.errors import UsageError

MAX_ARGUMENT_LENGTH = 4095
MAX_NAME_LENGTH = 255
"""What Linux and macOS take as a path, and as a name in it."""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser without abbreviations; wrong arguments raise UsageError and don't end the process."""

    def __init__(
        self, command: str, description: str, usage: str | None = None, epilog: str | None = None
    ) -> None:
        super().__init__(
            prog=f"unfreeze {command}",
            description=description,
            usage=usage,
            epilog=epilog,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """The options; UsageError names what is not understood."""
        for argument in arguments:
            self._check_length(argument)
        options, left = self.parse_known_args(list(arguments))
        if left:
            known = [name for action in self._actions for name in action.option_strings]
            word = left[0].partition("=")[0]
            hint = did_you_mean(word, known) if word.startswith("-") else ""
            raise UsageError(f"{format_key(word)}: unknown argument{hint}\n{self._see()}")
        return options

    def _check_length(self, argument: str) -> None:
        """Most arguments are names of files, sooner or later: refuse what none can be called."""
        parts = [] if "://" in argument else argument.split("/")
        lengths = [len(part.encode("utf-8", "surrogatepass")) for part in parts]
        if (
            "\0" in argument
            or len(argument) > MAX_ARGUMENT_LENGTH
            or max(lengths, default=0) > MAX_NAME_LENGTH
        ):
            raise UsageError(
                f"{format_value(argument)}: expected an argument of at most {MAX_ARGUMENT_LENGTH:,} letters, "
                f"{MAX_NAME_LENGTH} between two slashes\n{self._see()}"
            )

    def error(self, message: str) -> NoReturn:
        """Raise ``message`` as UsageError."""
        raise UsageError(f"{message}\n{self._see()}")

    def _help_hint(self) -> str:
        return f"see {self.prog} --help"


def add_storage_options(parser: Parser, tracking: bool = True, ledger: bool = False) -> None:
    """The options that say where a search's files and runs are."""
    known = options_from_environment()
    parser.add_argument(
        "--storage",
        metavar="DIR",
        default=known.get("storage", "./unfreeze-runs"),
        help="folder of the searches' files",
    )
    if ledger:
        parser.add_argument(
            "--ledger",
            metavar="URL",
            default=known.get("ledger"),
            help="database URL, if the search was given one",
        )
    if tracking:
        parser.add_argument(
            "--tracking-uri",
            metavar="URI",
            default=known.get("tracking_uri"),
            help="MLflow server or database, if not in the storage",
        )


def add_verbose_option(parser: argparse._ActionsContainer) -> None:
    """``--verbose``, which every command has."""
    parser.add_argument("--verbose", action="store_true", help="show warnings, logs and tracebacks")
