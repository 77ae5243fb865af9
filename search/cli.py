"""The command ``unfreeze``. Each sub-command is a module of :mod:`search.commands`, which is imported when called.

This module imports no large library, so that ``unfreeze --help`` is fast.
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence

from search.config.environment import ExitCode
from trainables.errors import UnfreezeError, UsageError

COMMANDS = {
    "search": "find the best fine-tuning; run it again to resume",
    "status": "print trials by state, the best so far, and the cost",
    "logs": "print what happened to one trial",
    "report": "write a search's report again",
    "curves": "write a search's learning curves for TensorBoard",
    "ui": "open MLflow on a search's runs and models",
    "promote": "make a model's challenger its champion, if it is better",
    "rollback": "make the previous champion the champion again",
    "history": "list every change of a model's champion, and why",
    "predict": "classify images with a model",
    "export": "write a model as TensorFlow SavedModel, TFLite or ONNX",
    "score": "print how well backbones suit your data, before any training",
    "backbones": "list the backbones that have a name",
    "doctor": "check machine, cluster, storage and tracking server",
}

_PAGE = """\
unfreeze finds the best way to fine-tune a pretrained Keras model on your data.
Optuna proposes the trials, Ray Tune runs them, MLflow records them.

Start here:
  unfreeze search                      handwritten digits, a few minutes, no download
  unfreeze search --data photos/ --backbone MobileNetV2 --trials 40
  unfreeze search cats.yaml --epochs 30
  unfreeze ui                          compare the runs
  unfreeze promote unfreeze-digits     make the winner the champion
  unfreeze predict models:/unfreeze-digits@champion digit.png

Commands:
{commands}

unfreeze COMMAND --help describes a command; --verbose shows its logs and tracebacks.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code, an :class:`~search.config.environment.ExitCode`.

    Args:
        argv: arguments without the program's name; None for those of this process.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    verbose = "--verbose" in arguments
    try:
        return _dispatch(arguments)
    except UsageError as error:
        return _print_error(str(error), ExitCode.USAGE, verbose)
    except UnfreezeError as error:
        return _print_error(_message(error), ExitCode.FAILED, verbose)
    except KeyboardInterrupt:
        return _print_error("interrupted", ExitCode.INTERRUPTED, verbose=False)
    except BrokenPipeError:
        # The reader of our output has ended, as in `unfreeze backbones | head`. The interpreter flushes stdout at exit
        # and would fail again, so stdout is redirected first.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.FAILED
    except Exception as error:  # noqa: BLE001  users get a message and the path of the traceback
        return _print_error(_unexpected(error, verbose), ExitCode.FAILED, verbose)


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(page(), end="")
        return 0
    if arguments[0] in ("-V", "--version"):
        from importlib.metadata import version

        print(f"unfreeze {version('unfreeze')}")
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        from search.config.choices import did_you_mean
        from search.config.validation_errors import quote_key

        raise UsageError(
            f"{quote_key(name)}: unknown command{did_you_mean(name, COMMANDS)}; expected one of {', '.join(COMMANDS)}"
        )
    command = importlib.import_module(f"search.commands.{name}")
    try:
        options = command.parser().parse(rest)
    except SystemExit as ended:  # argparse has printed the page of --help
        return int(ended.code or 0)
    if options.verbose:
        return int(command.run(options, rest))
    from search.views.quiet_libraries import quiet_libraries

    with quiet_libraries():
        return int(command.run(options, rest))


def page() -> str:
    """Return what ``unfreeze --help`` prints."""
    return _PAGE.format(commands="\n".join(f"  {name:<11}{words}" for name, words in COMMANDS.items()))


def _message(error: UnfreezeError) -> str:
    """Return the message of the error, or of the error that Ray has wrapped when it crossed processes."""
    cause = getattr(error, "cause", None)
    return str(cause if isinstance(cause, UnfreezeError) else error)


def _unexpected(error: Exception, verbose: bool) -> str:
    first = f"{type(error).__name__}: {error}".splitlines()[0]
    if verbose:
        return f"unexpected error: {first}"
    with tempfile.NamedTemporaryFile(
        "w", prefix="unfreeze-", suffix=".log", delete=False, encoding="utf-8"
    ) as log:
        log.write("".join(traceback.format_exception(error)))
    return f"unexpected error: {first}\nThe traceback is in {log.name}; --verbose shows it."


def _print_error(message: str, code: int, verbose: bool) -> int:
    if verbose:
        traceback.print_exc()
    colour = sys.stderr.isatty() and "NO_COLOR" not in os.environ
    head = "\x1b[1;31munfreeze:\x1b[0m" if colour else "unfreeze:"
    print(head, message, file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
