"""The command ``unfreeze``: each sub-command is a module of :mod:`search.commands`, loaded when called."""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence

from trainables.errors import UnfreezeError, UsageError

COMMANDS = {
    "search": "find the best fine-tuning; run it again to go on with it",
    "status": "trials by state, the best so far, what it cost",
    "logs": "what happened to one trial, and what was printed meanwhile",
    "report": "write a search's HTML report again",
    "curves": "write a search's learning curves for TensorBoard",
    "ui": "open MLflow on a search's runs and models",
    "promote": "make a model's challenger its champion, if it is better",
    "rollback": "make the champion before this one the champion again",
    "history": "every change of a model's champion, and why",
    "predict": "classify images with a model",
    "export": "a model as TensorFlow SavedModel, TFLite or ONNX",
    "score": "how well backbones suit your data, before any training",
    "backbones": "list the backbones that have a name",
    "doctor": "name what is wrong with machine, cluster, storage or tracking server",
}

_PAGE = """\
unfreeze finds the best way to fine-tune a pretrained Keras model on your data.
Ray Tune runs the trials, Optuna chooses them, MLflow records them.

Start here:
  unfreeze search                      handwritten digits, a few minutes, no download
  unfreeze search --data photos/ --backbone MobileNetV2 --trials 40
  unfreeze search cats.yaml --epochs 30
  unfreeze ui                          compare the runs
  unfreeze promote unfreeze-digits     make the winner the champion
  unfreeze predict models:/unfreeze-digits@champion digit.png

Commands:
{commands}

unfreeze COMMAND --help says more about one of them; --verbose shows what goes wrong inside.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 1 failed, 2 bad usage, 130 interrupted."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    verbose = "--verbose" in arguments
    try:
        return _dispatch(arguments)
    except UsageError as error:
        return _print_error(str(error), 2, verbose)
    except UnfreezeError as error:
        return _print_error(_message(error), 1, verbose)
    except KeyboardInterrupt:
        return _print_error("interrupted", 130, verbose=False)
    except BrokenPipeError:
        # Whoever read our output has gone; the interpreter's own flush at exit must not complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # noqa: BLE001  the last resort: a traceback is no message
        return _print_error(_unexpected(error, verbose), 1, verbose)


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
        from search.config.validation_errors import format_key

        raise UsageError(
            f"{format_key(name)}: unknown command{did_you_mean(name, COMMANDS)}; expected one of {', '.join(COMMANDS)}"
        )
    command = importlib.import_module(f"search.commands.{name}")
    try:
        options = command.parser().parse(rest)
    except SystemExit as ended:  # --help has printed its page
        return int(ended.code or 0)
    if options.verbose:
        return int(command.run(options, rest))
    from search.views.quiet_libraries import quiet_libraries

    with quiet_libraries():
        return int(command.run(options, rest))


def page() -> str:
    """What ``unfreeze --help`` prints."""
    return _PAGE.format(commands="\n".join(f"  {name:<11}{words}" for name, words in COMMANDS.items()))


def _message(error: UnfreezeError) -> str:
    """The message as it was raised, also where Ray has wrapped the error on its way here."""
    cause = getattr(error, "cause", None)
    return str(cause if isinstance(cause, UnfreezeError) else error)


def _unexpected(error: Exception, verbose: bool) -> str:
    first = f"{type(error).__name__}: {error}".splitlines()[0]
    if verbose:
        return f"this should not have happened: {first}"
    with tempfile.NamedTemporaryFile(
        "w", prefix="unfreeze-", suffix=".log", delete=False, encoding="utf-8"
    ) as log:
        log.write("".join(traceback.format_exception(error)))
    return f"this should not have happened: {first}\nThe traceback is in {log.name}; --verbose shows it."


def _print_error(message: str, code: int, verbose: bool) -> int:
    if verbose:
        traceback.print_exc()
    colour = sys.stderr.isatty() and "NO_COLOR" not in os.environ
    head = "\x1b[1;31munfreeze:\x1b[0m" if colour else "unfreeze:"
    print(head, message, file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
