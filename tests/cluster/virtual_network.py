"""Build a network of hosts on this machine from Linux namespaces.

Each host has its own namespaces, home directory, ``/tmp`` and SSH server. Its first process waits on a pipe. When that
process is killed, or when the test process dies, the kernel ends everything that runs on the host and removes its
network and mounts. All files are inside the folder of the network, and a host sees no process outside of it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

NETWORK = "10.77.0"
HOME = "/root"
"""Home directory of the user on every host."""

SHARED = "/mnt/unfreeze"
"""Path of the shared folder on every host."""

TOOLS = ("unshare", "nsenter", "ip", "sshd", "ssh", "ssh-keygen", "rsync", "mount")

# $FOLDER holds the host's own root/, tmp/ and etc/, which are mounted over /root, /tmp and files in /etc. Folders in
# $VISIBLE would be hidden by these mounts, so they are mounted first, at the matching place below $FOLDER.
_INIT = r"""
set -eu
home=/root
mount --make-rprivate /
printf '%s\n' "$VISIBLE" | while IFS= read -r path; do
  case $path in
    "$home"/*) over=$FOLDER$path ;;
    /tmp/*) over=$FOLDER/tmp${path#/tmp} ;;
    *) over=$path ;;
  esac
  mkdir -p "$over"
  mount --bind "$path" "$over"
  mount -o remount,bind,ro "$over"
done
mount -t tmpfs tmpfs /mnt
mkdir "$MOUNTPOINT"
mount --bind "$SHARED_FOLDER" "$MOUNTPOINT"
mount -t tmpfs tmpfs /run
mkdir -p /run/sshd
for file in passwd shadow hosts sshd_config; do
  [ -e /etc/$file ] && mount --bind "$FOLDER/etc/$file" /etc/$file
done
cp "$FOLDER/etc/sshd_config" "$FOLDER/etc/host_key" /run/sshd
chmod 600 /run/sshd/host_key
mount -t tmpfs -o mode=1777,size=100% tmpfs /dev/shm
mount --rbind "$FOLDER/root" /root
mount --rbind "$FOLDER/tmp" /tmp
hostname "$NAME"
cd /
ip link set lo up
read -r _ # wait until the test has connected the network cable
ip link set eth0 up
ip addr add "$ADDRESS/24" dev eth0
ip route add default via "$GATEWAY"
"$(command -v sshd || echo /usr/sbin/sshd)" -f /run/sshd/sshd_config -E /tmp/sshd.log
echo ready
while read -r _; do :; done
"""

_SSHD = """
Port 22
HostKey /run/sshd/host_key
PidFile none
AuthorizedKeysFile .ssh/authorized_keys
PermitRootLogin prohibit-password
PasswordAuthentication no
UsePAM no
StrictModes no
"""

# By default Ray declares a silent node lost after a minute. Here it takes about 25 s, and a node that lost its head
# ends after 20 s, so that the tests need not wait as long.
_BASHRC = """
export RAY_health_check_initial_delay_ms=2000 RAY_health_check_period_ms=1000 RAY_health_check_timeout_ms=5000
export RAY_health_check_failure_threshold=4 RAY_gcs_rpc_server_reconnect_timeout_s=20
# If not running interactively, don't do anything
case $- in *i*) ;; *) return ;; esac
"""


class NetworkUnavailable(Exception):
    """Raised with the reason if this machine cannot build hosts."""


def check_tools() -> None:
    """Check that this machine can build hosts.

    Raises:
        NetworkUnavailable: if a program or a permission is missing.
    """
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        raise NetworkUnavailable("hosts are built from Linux namespaces, which needs root")
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    missing = [tool for tool in TOOLS if shutil.which(tool, path=path) is None]
    if missing:
        raise NetworkUnavailable(f"not installed: {', '.join(missing)} (openssh-server, rsync, iproute2)")
    command = ["unshare", "--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--mount-proc", "sh", "-c"]
    command.append(
        "mount -t tmpfs tmpfs /mnt && ip link add name switch type bridge && ip link add name cable type veth"
    )
    tried = subprocess.run(command, capture_output=True, text=True, check=False)
    if tried.returncode:
        raise NetworkUnavailable(f"this machine cannot create namespaces: {tried.stderr.strip()}")


@dataclass
class Host:
    """A host of the network."""

    name: str
    address: str
    folder: Path
    visible: Sequence[Path]
    shared: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    _process: subprocess.Popen[str] | None = None

    @property
    def home(self) -> Path:
        """The home directory, as a path outside of the host."""
        return self.folder / "root"

    @property
    def pid(self) -> int:
        """PID of the host's first process, outside of the host."""
        assert self._process is not None, f"{self.name} is switched off"
        (first,) = psutil.Process(self._process.pid).children()
        return first.pid

    def switch_on(self, switch: int) -> None:
        """Start the host and connect it to the switch, the network namespace of process ``switch``."""
        shutil.rmtree(self.folder / "tmp", ignore_errors=True)
        (self.folder / "tmp").mkdir(mode=0o1777, parents=True)
        environment = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "NAME": self.name,
            "ADDRESS": self.address,
            "GATEWAY": f"{NETWORK}.1",
            "FOLDER": str(self.folder),
            "VISIBLE": "\n".join(str(path) for path in self.visible),
            "SHARED_FOLDER": str(self.shared),
            "MOUNTPOINT": SHARED,
        }
        spaces = ["--mount", "--net", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc"]
        with (self.folder / "log.txt").open("a") as log:
            self._process = subprocess.Popen(
                ["unshare", *spaces, "bash", "-c", _INIT],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd="/",
            )
        _until(lambda: len(psutil.Process(self._process.pid).children()) == 1, 20, f"{self.name} starts")
        # The kernel removes the cable of a dead host asynchronously, so an old one may still exist.
        _ip(switch, f"link del to-{self.name}", check=False)
        # A restarted host keeps its hardware address, as a real machine does. With a new one, the other hosts could not
        # reach it until their ARP entries expire.
        hardware = f"02:00:00:00:00:{int(self.address.rpartition('.')[2]):02x}"
        card = f"peer name eth0 address {hardware} netns {self.pid}"
        _ip(switch, f"link add name to-{self.name} type veth {card}")
        _ip(switch, f"link set to-{self.name} master switch up")
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("plugged\n")
        self._process.stdin.flush()
        said = self._process.stdout.readline()
        if said.strip() != "ready":
            raise NetworkUnavailable(f"{self.name}: {(self.folder / 'log.txt').read_text()[-2000:]}")

    def cut_power(self) -> None:
        """Kill all processes of the host at once, as a power failure does. Its files stay."""
        if self._process is None:
            return
        process, self._process = self._process, None
        process.kill()  # --kill-child then kills the first process of the host, which ends all others
        process.wait(30)
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()  # type: ignore[union-attr]

    def start(self, *command: str, log: Path | None = None) -> subprocess.Popen[str]:
        """Start a command in a login shell on the host, with its output in ``log``."""
        line = self._line(command)
        with (log or Path(os.devnull)).open("a") as output:
            return subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=output, stderr=output, text=True)

    def run(self, *command: str, timeout: float = 600) -> str:
        """Run a command on the host and return its output. Raises AssertionError if it fails."""
        line = self._line(command)
        done = subprocess.run(line, capture_output=True, text=True, timeout=timeout, check=False)
        assert done.returncode == 0, f"{self.name}: {command}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done.stdout

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file below the home directory of the host."""
        file = self.home / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def _line(self, command: Sequence[str]) -> list[str]:
        """The command line that runs ``command`` in a login shell of the host."""
        inside = ["nsenter", "--target", str(self.pid), "--all", f"--wd={HOME}", "env", "-i"]
        shell = ["bash", "--login", "-c", 'source ~/.bashrc; exec "$@"', "bash"]
        return [*inside, *self._variables(), *shell, *command]

    def _variables(self) -> list[str]:
        known = {"HOME": "/root", "USER": "root", "LANG": "C.UTF-8", "TERM": "xterm", **self.environment}
        known["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return [f"{key}={value}" for key, value in known.items()]


class VirtualNetwork:
    """Hosts that share a network and a folder.

    Args:
        folder: holds the files of all hosts.
        names: names of the hosts. The first has the address ``10.77.0.10``, the next ``.11`` and so on.
        visible: folders of this machine that the hosts see at the same path, read-only.
    """

    def __init__(self, folder: Path, names: Sequence[str], visible: Sequence[Path]) -> None:
        self.folder = folder
        self.shared = folder / "shared"
        self.shared.mkdir(parents=True)
        self._switch: subprocess.Popen[bytes] | None = None
        self.hosts = {
            name: Host(name, f"{NETWORK}.{10 + i}", folder / name, visible, self.shared)
            for i, name in enumerate(names)
        }
        self._make_keys(folder / "key")
        for host in self.hosts.values():
            self._write_etc(host, folder / "key")

    def open(self) -> None:
        """Start the switch and all hosts."""
        self._switch = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE)
        switch = self._switch.pid
        ours = Path("/proc/self/ns/net").readlink()
        _until(lambda: Path(f"/proc/{switch}/ns/net").readlink() != ours, 20, "the switch starts")
        _ip(switch, "link set lo up")
        _ip(switch, "link add name switch type bridge")
        _ip(switch, f"addr add {NETWORK}.1/24 dev switch")
        _ip(switch, "link set switch up")
        for host in self.hosts.values():
            host.switch_on(switch)

    def close(self) -> None:
        """Remove all hosts and their network."""
        for host in self.hosts.values():
            host.cut_power()
        if self._switch is not None:
            self._switch.kill()
            self._switch.wait(30)
            self._switch = None

    def bring_back(self, name: str) -> None:
        """Restart a host after :meth:`Host.cut_power`."""
        assert self._switch is not None
        self.hosts[name].switch_on(self._switch.pid)

    def cut_off(self, name: str) -> None:
        """Disconnect a host at the switch, so that neither side sees a closed connection."""
        assert self._switch is not None
        _ip(self._switch.pid, f"link set to-{name} down")

    def plug_in(self, name: str) -> None:
        """Connect the host again."""
        assert self._switch is not None
        _ip(self._switch.pid, f"link set to-{name} up")

    def _make_keys(self, folder: Path) -> None:
        folder.mkdir()
        for name in ("user", "host"):
            line = [
                "ssh-keygen",
                "-q",
                "-t",
                "ed25519",
                "-N",
                "",
                "-C",
                "network",
                "-f",
                str(folder / name),
            ]
            subprocess.run(line, check=True)

    def _write_etc(self, host: Host, keys: Path) -> None:
        etc = host.folder / "etc"
        etc.mkdir(parents=True)
        passwd = [
            line for line in Path("/etc/passwd").read_text().splitlines() if not line.startswith("root:")
        ]
        if not any(line.startswith("sshd:") for line in passwd):
            passwd.append("sshd:x:65533:65534::/run/sshd:/usr/sbin/nologin")
        (etc / "passwd").write_text("\n".join(["root:x:0:0:root:/root:/bin/bash", *passwd, ""]))
        (etc / "shadow").write_text("root:*:20000:0:99999:7:::\n")
        (etc / "shadow").chmod(0o600)
        names = [f"{other.address} {other.name}" for other in self.hosts.values()]
        (etc / "hosts").write_text("\n".join(["127.0.0.1 localhost", *names, ""]))
        (etc / "sshd_config").write_text(_SSHD)
        shutil.copy(keys / "host", etc / "host_key")
        host.write(".ssh/authorized_keys", (keys / "user.pub").read_text(), 0o600)
        host.write(".bashrc", textwrap.dedent(_BASHRC))


def _ip(namespace: int, arguments: str, check: bool = True) -> None:
    """Run ``ip`` in the network namespace of a process."""
    line = ["nsenter", f"--net=/proc/{namespace}/ns/net", "ip", *arguments.split()]
    subprocess.run(line, check=check, capture_output=True)


def _until(holds: object, seconds: float, words: str) -> None:
    end = time.monotonic() + seconds
    while not holds():  # type: ignore[operator]
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds:g} s: {words}")
        time.sleep(0.02)
