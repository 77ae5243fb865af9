"""Write and read the log files of a search: one file for the driver and one for each engine.

The files are in ``STORAGE/NAME/logs/``, which outlives the cluster. Each engine writes to its own file, so two
machines never write to the same one. An event is one line: a time in UTC, the number of a trial or a dash, and a
message. Output of TensorFlow, of CUDA and of a crashing process goes into the same file between the events; such
lines are recognised because they do not start with a time.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import re
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

LOG_FOLDER = "logs"
DRIVER_LOG = "driver.log"
ENGINE_EXIT = "leaves the engine"
"""How the message begins that a trial has ended its work in an engine."""
MAX_LOG_BYTES = 64 * 2**20
"""Size limit of one engine's log. A larger log loses its older part when the next trial starts."""

KEPT_LOG_BYTES = 16 * 2**20
_LINE = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) \[([^\]]*)\] (.*)")


@dataclass(frozen=True)
class LogLine:
    """One line of a log. ``moment`` and ``trial`` are None for lines that are not events."""

    message: str
    moment: datetime | None = None
    trial: str | None = None


class EventLog:
    """Log the events of the trials in one process. If a folder is not writable, its log is skipped silently."""

    def __init__(self) -> None:
        self._files: dict[str, IO[str] | None] = {}
        self._of_trial: dict[str, str] = {}
        self._lock = threading.Lock()

    def start_trial(self, trial: str, folder: str | None, message: str) -> None:
        """Log that a trial starts, and send all its later lines to a file in ``folder``."""
        with self._lock:
            if folder is None:
                return
            self._of_trial[trial] = folder
            if folder not in self._files:
                self._files[folder] = self._opened(folder)
            # The log is cut only when a trial starts, not at every event, because the check reads the size of the
            # file.
            elif (file := self._files[folder]) is not None:
                with contextlib.suppress(OSError, ValueError):
                    truncate_log(Path(file.name))
        self.write(trial, message)

    def write(self, trial: str, message: str) -> None:
        """Log one event of a trial."""
        with self._lock:
            file = self._files.get(self._of_trial.get(trial, ""))
            if file is not None:
                with contextlib.suppress(OSError, ValueError):
                    # Flushed after every event: the last lines before a crash are the most important ones.
                    file.write(format_line(trial, message))
                    file.flush()

    def end_trial(self, trial: str, message: str) -> None:
        """Log that a trial ends in this process, and forget its folder."""
        self.write(trial, message)
        with self._lock:
            self._of_trial.pop(trial, None)

    # Host and process id make the name unique, so that no two processes append to one file: on network file
    # systems, appends of two machines can overwrite each other.
    def _opened(self, folder: str) -> IO[str] | None:
        host, pid = socket.gethostname(), os.getpid()
        try:
            place = Path(folder)
            place.mkdir(parents=True, exist_ok=True)
            file = (place / f"{host}-{pid}.log").open("a", encoding="utf-8", errors="replace")
            file.write(format_line("", f"engine on {host}, process {pid}, Python {sys.version.split()[0]}"))
            file.flush()
        except OSError:
            return None
        return file


def redirect_output(folder: str) -> None:
    """Send stdout and stderr of this process, including native output, to a file of its own in ``folder``.

    The redirection is on the level of file descriptors, so that messages of native code and the stack trace of a
    crash (:mod:`faulthandler`) are kept, too.
    """
    try:
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        file = os.open(
            place / f"{socket.gethostname()}-{os.getpid()}.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644
        )
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        # This descriptor and the one of EventLog both append to the file, so neither overwrites the lines of
        # the other.
        os.dup2(file, 1)
        os.dup2(file, 2)
        # Prints the Python stack of all threads when native code crashes the process.
        faulthandler.enable(file=2)
    except (OSError, ValueError):
        return


def truncate_log(file: Path, max_bytes: int = MAX_LOG_BYTES, kept: int = KEPT_LOG_BYTES) -> None:
    """Cut a log of more than ``max_bytes`` bytes in place, down to the whole lines of its last ``kept`` bytes.

    Processes that append to the file can go on; only what they write during the cut may be lost.
    """
    if file.stat().st_size <= max_bytes:
        return
    with file.open("r+b") as log:
        log.seek(-kept, os.SEEK_END)
        # The position is most likely inside a line (and maybe inside a UTF-8 character): drop the rest of that
        # line.
        log.readline()
        newest = log.read()
        log.seek(0)
        log.write(format_line("", "older lines were cut off here: the log had grown too large").encode())
        log.write(newest)
        log.truncate()


def format_line(trial: str, message: str) -> str:
    """Format an event as one line, whatever line breaks the message contains."""
    moment = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return f"{moment} [{trial or '-'}] {' | '.join(message.splitlines())}\n"


def read_lines(file: Path) -> Iterator[LogLine]:
    """Yield the lines of one log; an unreadable file yields nothing."""
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    for raw in text.splitlines():
        if found := _LINE.fullmatch(raw):
            moment = datetime.fromisoformat(found[1].replace("Z", "+00:00"))
            yield LogLine(found[3], moment, found[2] if found[2] != "-" else None)
        elif raw.strip():
            yield LogLine(raw)
