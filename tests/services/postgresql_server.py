"""Start a PostgreSQL server that tests can stop and restart."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

SETTINGS = """
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = ''
fsync = on
shared_buffers = 16MB
max_connections = 30
"""


def programs() -> Path | None:
    """Folder of the newest PostgreSQL programs of Debian, or of those on the PATH; None if there are none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"), key=lambda p: int(p.parent.parent.name))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


@dataclass
class Postgres:
    """A database cluster in ``folder`` on an unused port of the loopback interface.

    PostgreSQL refuses to run as root. As root, it runs as the user ``postgres``.
    """

    folder: Path
    bin: Path
    port: int = 0
    _names: count[int] = field(default_factory=lambda: count(1))

    def create(self) -> None:
        """Create the database cluster and start the server."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder.mkdir(parents=True)
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres")
        self._run(
            "initdb", "-D", str(self._data), "-U", "unfreeze", "-A", "trust", "-E", "UTF8", "--no-locale"
        )
        with (self._data / "postgresql.conf").open("a") as settings:
            settings.write(SETTINGS.format(port=self.port))
        self.start()

    def url(self, database: str) -> str:
        """The SQLAlchemy URL of a database."""
        return f"postgresql://unfreeze:a%20secret@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """Create an empty database and return its URL."""
        name = f"ledger{next(self._names)}"
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "unfreeze", name)
        return self.url(name)

    def start(self) -> None:
        """Start the server and wait until it answers."""
        self._run("pg_ctl", "start", "-w", "-t", "120", "-D", str(self._data), "-l", str(self.folder / "log"))

    def stop(self, how: str = "immediate") -> None:
        """Stop the server. ``immediate`` equals a crash, from which it recovers when it starts again."""
        self._run("pg_ctl", "stop", "-w", "-t", "120", "-D", str(self._data), "-m", how)

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def _run(self, program: str, *arguments: str) -> None:
        user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        environment = {**os.environ, "LC_ALL": "C"}
        done = subprocess.run(
            [*user, str(self.bin / program), *arguments],
            cwd="/",
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{program} {arguments}: {done.stdout}")
