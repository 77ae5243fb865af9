"""The argument parser of every command, and the options that several commands share."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from typing import NoReturn

from search.config.choices import did_you_mean
from search.config.environment import DEFAULT_STORAGE, OPTION_VARIABLES, options_from_environment
from search.config.validation_errors import quote_key, quote_value
from trainables.errors import UsageError

MAX_ARGUMENT_LENGTH = 4095
MAX_NAME_LENGTH = 255
"""The longest path, and the longest name in a path, that Linux and macOS accept."""


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    def _split_lines(self, text: str, width: int) -> list[str]:
        # argparse breaks lines at hyphens, also inside of paths and options such as ./unfreeze-runs.
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises UsageError for wrong arguments instead of ending the process.

    It accepts no abbreviated options: an abbreviation that works today would become ambiguous with a new option.
    """

    def __init__(
        self, command: str, description: str, usage: str | None = None, epilog: str | None = None
    ) -> None:
        super().__init__(
            prog=f"unfreeze {command}",
            description=description,
            usage=usage,
            epilog=epilog,
            allow_abbrev=False,
            formatter_class=_HelpFormatter,
        )

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Return the options in ``arguments``.

        Raises:
            UsageError: an argument is unknown or too long, or a value is missing. A similar option is suggested.
        """
        for argument in arguments:
            self._check_length(argument)
        options, unknown = self.parse_known_args(list(arguments))
        if unknown:
            known = [name for action in self._actions for name in action.option_strings]
            word = unknown[0].partition("=")[0]
            hint = did_you_mean(word, known) if word.startswith("-") else ""
            raise UsageError(f"{quote_key(word)}: unknown argument{hint}\n{self._help_hint()}")
        return options

    def _check_length(self, argument: str) -> None:
        # Most arguments are used as file names later. An argument that cannot be one is refused here, with a clear
        # message, and not by the operating system somewhere inside.
        parts = [] if "://" in argument else argument.split("/")
        longest = max((len(part.encode("utf-8", "surrogatepass")) for part in parts), default=0)
        if "\0" in argument or len(argument) > MAX_ARGUMENT_LENGTH or longest > MAX_NAME_LENGTH:
            raise UsageError(
                f"{quote_value(argument)}: expected an argument of at most {MAX_ARGUMENT_LENGTH:,} letters, "
                f"{MAX_NAME_LENGTH} between two slashes\n{self._help_hint()}"
            )

    def error(self, message: str) -> NoReturn:
        """Raise ``message`` as UsageError. argparse calls this method for wrong arguments."""
        raise UsageError(f"{message}\n{self._help_hint()}")

    def _help_hint(self) -> str:
        return f"see {self.prog} --help"


def add_storage_options(parser: Parser, tracking: bool = True, ledger: bool = False) -> None:
    """Add the options that locate a search's files: ``--storage``, on request ``--ledger`` and others."""
    known = options_from_environment()
    parser.add_argument(
        "--storage",
        metavar="DIR",
        default=known.get("storage", DEFAULT_STORAGE),
        help=f"Folder of the searches' files (default: ${OPTION_VARIABLES['storage']}, or {DEFAULT_STORAGE}).",
    )
    if ledger:
        parser.add_argument(
            "--ledger",
            metavar="URL",
            default=known.get("ledger"),
            help=f"Database of the ledger, if the search has its own (default: ${OPTION_VARIABLES['ledger']}, or a "
            "file in the storage).",
        )
    if tracking:
        parser.add_argument(
            "--tracking-uri",
            metavar="URI",
            default=known.get("tracking_uri"),
            help=f"MLflow tracking server or database (default: ${OPTION_VARIABLES['tracking_uri']}, or a file in the "
            "storage).",
        )


def add_verbose_option(parser: argparse._ActionsContainer) -> None:
    """Add ``--verbose``, which every command has."""
    parser.add_argument("--verbose", action="store_true", help="Show warnings, logs and tracebacks.")
