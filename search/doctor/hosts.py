"""Checks the machines that a cluster file with ``provider: local`` names, over SSH as ``ray up`` would."""

from __future__ import annotations

import hashlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.doctor.node_checks import CLOCK_SECONDS
from search.execution.cluster.head_check import own_token
from search.records.finding import Finding, failed, ok, warning
from search.records.formatting import plural

SECONDS = 5.0
"""Time for a port to answer, and for SSH to connect."""

_INSPECT_SCRIPT = """
hostname; date +%s.%N
sha256sum ~/.ray/auth_token 2>/dev/null | cut -d' ' -f1 | grep . || echo none
missing=; for program in rsync python3; do command -v $program >/dev/null || missing="$missing $program"; done
echo "missing:$missing"
"""


@dataclass(frozen=True)
class Host:
    """The result of one SSH login.

    Attributes:
        address: as in the cluster file.
        problem: why the login failed; empty if it worked.
        name: host name.
        skew: seconds by which the host's clock is ahead of this machine's.
        token: SHA-256 of Ray's authentication token there; ``none`` if there is none.
        missing: programs that ``ray up`` needs and that are not installed there.
    """

    address: str
    problem: str
    name: str = ""
    skew: float = 0.0
    token: str = ""
    missing: str = ""


def check_hosts(content: Mapping[str, Any]) -> Iterator[Finding]:
    """Log into all machines at once and compare what is there with this machine.

    Args:
        content: of the cluster file.
    """
    provider, auth = content["provider"], content.get("auth", {})
    addresses = [provider["head_ip"], *(provider.get("worker_ips") or [])]
    with ThreadPoolExecutor(min(len(addresses), 32)) as pool:
        hosts = list(pool.map(lambda address: _inspect_host(address, auth), addresses))
    inside = [h for h in hosts if not h.problem]
    for host in hosts:
        if host.problem:
            yield failed("hosts", host.problem)
        elif host.missing:
            yield failed("hosts", f"{host.address} ({host.name}) has no {host.missing}: install it there")
    skewed = [f"{h.address} by {h.skew:+.0f} s" for h in inside if abs(h.skew) > CLOCK_SECONDS]
    if skewed:
        yield warning(
            "clock", f"clocks differ from this machine's: {'; '.join(skewed)}: run an NTP client there"
        )
    mine = hashlib.sha256(
        own_token().text.encode()
    ).hexdigest()  # the tokens themselves stay on their machines
    others = [h.address for h in inside if h.token not in ("none", mine)]
    if others:
        yield warning(
            "token", f"{', '.join(others)}: another token than this machine's is in ~/.ray/auth_token there. A worker "
            "with another token never joins; `ray up` copies this machine's to all of them"
        )  # fmt: skip
    if len(inside) == len(hosts):
        yield ok("hosts", f"SSH works to {plural(len(hosts), 'machine')}")


def _inspect_host(address: str, auth: Mapping[str, Any]) -> Host:
    target, port = _resolved(address)
    if port is not None:
        try:
            socket.create_connection((target, port), timeout=SECONDS).close()
        except OSError as error:
            return Host(
                address,
                f"{address} can't be reached at SSH port {port} ({error.strerror or error}). Check that it "
                "runs, that the address is right, and that no firewall blocks this machine.",
            )
    if shutil.which("ssh") is None:
        return Host(address, "")
    key = auth.get("ssh_private_key")
    user = auth.get("ssh_user")
    # Unknown host keys are accepted, as `ray up` does: cluster machines are often reinstalled at the same address.
    command = [
        *("ssh", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={SECONDS:.0f}"),
        *("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"),
        *(("-i", str(Path(key).expanduser())) if key else ()),
        *(f"{user}@{address}" if user else address, "sh -s"),
    ]
    began = time.time()
    try:
        done = subprocess.run(
            command, input=_INSPECT_SCRIPT, capture_output=True, text=True, timeout=20, check=False
        )
    except subprocess.TimeoutExpired:
        return Host(address, f"{address}: SSH did not complete a login within 20 s")
    lines = done.stdout.splitlines()
    if done.returncode or len(lines) != 4:
        ssh_message = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return Host(
            address,
            f"{address}: SSH as {user or 'this user'} with {key or 'the default keys'}: {ssh_message}",
        )
    # The host read its clock some time between; the middle is wrong by at most half of the login.
    skew = float(lines[1]) - (began + time.time()) / 2
    return Host(address, "", lines[0], skew, lines[2], lines[3].removeprefix("missing:").strip())


def _resolved(address: str) -> tuple[str, int | None]:
    """Host and port as ``~/.ssh/config`` resolves them; no port if SSH connects through a proxy."""
    if shutil.which("ssh") is None:
        return address, 22
    asked = subprocess.run(["ssh", "-G", address], capture_output=True, text=True, timeout=10, check=False)
    known = dict(line.split(" ", 1) for line in asked.stdout.splitlines() if " " in line)
    through = any(known.get(name, "none") != "none" for name in ("proxyjump", "proxycommand"))
    return known.get("hostname", address), None if through else int(known.get("port", 22))
