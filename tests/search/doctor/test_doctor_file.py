"""A cluster file, its keys and its machines, before ``ray up``."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from raylets import LIMIT, Findings, can_mount, free_port

from search.doctor.cluster_file import check_cluster_file
from search.doctor.targets import CheckTargets
from search.records.finding import Finding

Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A cluster in the cloud, and all that its file names."""
    key, token = tmp_path / "key", tmp_path / "home" / ".ray" / "auth_token"
    token.parent.mkdir(parents=True)
    token.write_text("a token")
    key.write_text("a key")
    key.chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("PATH", str(folder_with_programs(tmp_path / "bin", "ssh", "rsync")))
    return {
        "cluster_name": "c",
        "max_workers": 4,
        "provider": {"type": "aws", "region": "us-west-2"},
        "auth": {"ssh_user": "ubuntu", "ssh_private_key": str(key)},
        "file_mounts": {"~/.ray/auth_token": "~/.ray/auth_token", "~/code": str(tmp_path)},
        "head_node_type": "head",
        "available_node_types": {
            "head": {"resources": {"CPU": 2}, "max_workers": 0, "node_config": {}},
            "gpu": {"resources": {"CPU": 8, "GPU": 1}, "node_config": {}},
        },
        "head_start_ray_commands": ["RAY_AUTH_MODE=token ray start --head"],
        "worker_start_ray_commands": ["RAY_AUTH_MODE=token ray start --address=$RAY_HEAD_IP:6379"],
    }


def folder_with_programs(folder: Path, *names: str) -> Path:
    """A folder for PATH with programs of these names, which the doctor looks for and does not run."""
    folder.mkdir()
    for name in names:
        (folder / name).touch(mode=0o755)
    return folder


def checked(content: object, folder: Path, gpus: float = 1.0) -> list[Finding]:
    file = folder / "größe c.yaml"
    file.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
    return list(check_cluster_file(CheckTargets(folder, cluster_file=file, gpus_per_trial=gpus)))


def test_a_valid_file_has_no_findings(good: dict[str, Any], tmp_path: Path) -> None:
    findings = checked(good, tmp_path)
    assert {f.grade for f in findings} == {"ok"}, findings
    assert {f.check for f in findings} == {"file", "key", "token", "requests"}


@pytest.mark.parametrize(
    ("change", "check", "words"),
    [
        (lambda c: c.update(max_worker=3), "file", "Additional properties are not allowed ('max_worker'"),
        (lambda c: c["provider"].pop("type"), "file", "expected provider.type"),
        (lambda c: c.update(head_node_type="x"), "file", "`head_node_type` must be one of"),
        (lambda c: c["auth"].update(ssh_port=22), "file", "auth: Additional properties are not allowed"),
        (
            lambda c: c["available_node_types"]["gpu"].update(min_workers=9),
            "file",
            "`max_workers` is smaller than",
        ),
        (
            lambda c: c["provider"].update(region="<your region>"),
            "file",
            "filled in: provider.region (<your region>)",
        ),
        (
            lambda c: c["auth"].update(ssh_private_key="/no/key"),
            "key",
            "/no/key: no such file. `ssh-keygen -f /no/key`",
        ),
        (lambda c: Path(c["auth"]["ssh_private_key"]).chmod(0o644), "key", "so ssh refuses it: chmod 600"),
        (
            lambda c: c["file_mounts"].pop("~/.ray/auth_token"),
            "token",
            "the token is not copied to the nodes",
        ),
        (
            lambda c: (Path.home() / ".ray" / "auth_token").unlink(),
            "token",
            "`ray get-auth-token --generate` makes one",
        ),
        (
            lambda c: os.environ.update(RAY_AUTH_TOKEN="another"),
            "token",
            "this machine uses the token in RAY_AUTH_TOKEN, and the nodes get that of",
        ),
        (
            lambda c: c.update(head_start_ray_commands=["ray start --head"], worker_start_ray_commands=[]),
            "token",
            "RAY_AUTH_MODE=token is missing",
        ),
        (
            lambda c: c.update(head_start_ray_commands=["RAY_AUTH_MODE=disabled ray start --head"]),
            "token",
            "anybody who reaches the head's ports can run programs",
        ),
        (
            lambda c: c["file_mounts"].update({"~/data": "no/such/folder"}),
            "file",
            "no such file or folder: no/such/folder (for ~/data)",
        ),
        (
            lambda c: c["available_node_types"].pop("gpu"),
            "requests",
            "a trial asks for 1 CPU and 1 GPU and no node type has that (head: 2 CPU)",
        ),
    ],
)
def test_errors_in_a_file_are_named(
    good: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Change,
    check: str,
    words: str,
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "")  # and whatever a case sets is gone with it
    change(good)
    said = [f.words for f in checked(good, tmp_path) if f.check == check and f.grade != "ok"]
    assert any(words in line for line in said), said


@pytest.mark.parametrize("program", ["ssh", "rsync"])
def test_a_missing_program_that_ray_up_needs_is_named(
    good: dict[str, Any], tmp_path: Path, program: str
) -> None:
    (tmp_path / "bin" / program).unlink()
    (failed,) = [f for f in checked(good, tmp_path) if f.grade != "ok"]
    assert failed.check == "key"
    assert f"{program} is not installed on this machine" in failed.words


@pytest.mark.parametrize(
    ("content", "words"),
    [("a: [", "is no YAML"), ("- a", "expected keys and values, received list"), ("", "received NoneType")],
)
def test_content_that_is_not_a_cluster_file_is_named(tmp_path: Path, content: str, words: str) -> None:
    (found,) = checked(content, tmp_path)
    assert found.grade == "failed"
    assert words in found.words


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    (found,) = check_cluster_file(CheckTargets(tmp_path, cluster_file=tmp_path / "none.yaml"))
    assert "No such file" in found.words


MACHINES = """
set -e
mount -t tmpfs -o mode=700 none ~/.ssh
mount -t tmpfs -o mode=700 none ~/.ray
cd "$1"
for key in host right wrong; do ssh-keygen -q -t ed25519 -N '' -f $key; done
cp right.pub ~/.ssh/authorized_keys
echo 'an old token' > ~/.ray/auth_token
mkdir -p /run/sshd
cat > sshd_config <<END
Port $2
ListenAddress 127.0.0.1
HostKey $1/host
AuthorizedKeysFile $HOME/.ssh/authorized_keys
UsePAM no
PidFile none
END
printf 'Host far\\n  HostName 127.0.0.1\\n  Port %s\\n' "$2" > ~/.ssh/config
$(command -v sshd || echo /usr/sbin/sshd) -D -e -f sshd_config 2> sshd.log &
server=$!
trap 'kill $server' EXIT
for i in $(seq 200); do (exec 3<>/dev/tcp/127.0.0.1/$2) 2>/dev/null && break; sleep 0.1; done
for file in right.yaml wrong.yaml; do
  RAY_AUTH_TOKEN='a new token' "$3" -m search.cli doctor --json --cluster $file --storage . || true
done
"""


def hosts_can_be_made() -> str | None:
    """Why they can't, if so."""
    if not can_mount() or os.getuid():
        return "this process may make no mount namespaces, in which ~/.ssh is another one"
    if not (shutil.which("sshd") or Path("/usr/sbin/sshd").exists()):
        return "there is no sshd: install openssh-server"
    return None


@pytest.mark.slow
def test_failed_logins_and_problems_of_machines_are_reported(tmp_path: Path) -> None:
    """A real SSH server under a name of ``~/.ssh/config``, and an address where there is none."""
    if reason := hosts_can_be_made():
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    for home in (".ssh", ".ray"):
        (Path.home() / home).mkdir(mode=0o700, exist_ok=True)
    for key in ("right", "wrong"):
        content = {
            "cluster_name": "c",
            "provider": {"type": "local", "head_ip": "far", "worker_ips": ["127.0.0.77"]},
            "auth": {"ssh_user": "root", "ssh_private_key": str(tmp_path / key)},
            "file_mounts": {"~/.ray/auth_token": "~/.ray/auth_token"},
        }
        (tmp_path / f"{key}.yaml").write_text(yaml.safe_dump(content))
    port = str(free_port())
    line = ["unshare", "--mount", "--propagation", "private", "bash", "-c", MACHINES, "machines"]
    done = subprocess.run(
        [*line, str(tmp_path), port, sys.executable],
        capture_output=True,
        text=True,
        timeout=2 * LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    right, wrong = (json.loads(answer) for answer in done.stdout.splitlines())
    said = words_of(right)
    assert "127.0.0.77 can't be reached at SSH port 22" in said
    assert "far: another token than this machine's is in ~/.ray/auth_token there" in said
    assert "Permission denied" not in said
    assert "far: SSH as root with " in words_of(wrong)
    assert "Permission denied" in words_of(wrong)


def words_of(findings: Findings) -> str:
    return "\n".join(f["words"] for f in findings if f["grade"] != "ok")
