"""``unfreeze search`` on a running cluster: ``ray submit cluster.yaml search.py -- ARGS``.

``ray submit`` copies this file alone to ``~/search.py`` on the head and runs ``python ~/search.py ARGS`` there. It
bears the name of the package that it calls, so it makes sure that nobody takes it for the package.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path


def leave_the_import_path() -> None:
    """Take this file's folder off the import path, of which Ray tells the workers, too."""
    here = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != here]


def main(arguments: list[str]) -> int:
    """Run the search on the cluster of this machine; the exit code of ``unfreeze search``."""
    leave_the_import_path()
    try:
        from search.cli import main as unfreeze
    except ModuleNotFoundError as error:
        print(
            f"search.py: expected the package unfreeze in the environment of {sys.executable}, received: {error}. "
            "`ray up cluster.yaml` installs it.",
            file=sys.stderr,
        )
        return 1
    # A search that finds no cluster must not start one of its own on the head.
    if not any(a == "--address" or a.startswith("--address=") for a in arguments):
        arguments = [*arguments, "--address", "auto"]
    code = unfreeze(["search", *arguments])
    if code == 2:
        print(
            "search.py: `ray submit` hands arguments to a shell as they are. Quote those with spaces twice: "
            "--data '\"/mnt/unfreeze/my photos\"'",
            file=sys.stderr,
        )
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

# A worker whose import path begins with this file's folder (`ray job submit --working-dir .`) has taken it for the
# package: give way to the real one.
leave_the_import_path()
del sys.modules[__name__]
importlib.import_module(__name__)
