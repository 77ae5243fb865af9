"""Run ``unfreeze search`` on a running cluster: ``ray submit cluster.yaml search.py -- ARGS``.

``ray submit`` copies only this file to ``~/search.py`` on the head and runs ``python ~/search.py ARGS`` there. The file
has the same name as the package ``search`` that it calls, so it must not be imported in the package's place.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path


def leave_the_import_path() -> None:
    """Remove this file's folder from the import path. Ray copies the import path to its workers."""
    here = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != here]


def main(arguments: list[str]) -> int:
    """Run the search on the cluster of this machine and return the exit code of ``unfreeze search``."""
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
    # Without an address, a search that finds no cluster would start its own on the head.
    if not any(a == "--address" or a.startswith("--address=") for a in arguments):
        arguments = [*arguments, "--address", "auto"]
    code = unfreeze(["search", *arguments])
    if code == 2:
        print(
            "search.py: `ray submit` passes arguments to a shell without quoting them. Quote those with spaces twice: "
            "--data '\"/mnt/unfreeze/my photos\"'",
            file=sys.stderr,
        )
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

# This line is reached if the file was imported as `search`: by a worker whose import path begins with this folder
# (`ray job submit --working-dir .`). Import the real package in its place.
leave_the_import_path()
del sys.modules[__name__]
importlib.import_module(__name__)
