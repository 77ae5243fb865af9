"""Fixtures with four hosts and the files of ``cluster/``: a laptop, a head and two workers."""

from __future__ import annotations

import os
import shutil
import site
import sys
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from virtual_network import HOME, SHARED, NetworkUnavailable, VirtualNetwork, check_tools

CHECKOUT = Path(__file__).parents[2]
SHIPPED = ("search", "trainables", "cluster", "pyproject.toml", "constraints.txt", "README.md")
HEAD, WORKERS = "head", ("worker-1", "worker-2")


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualNetwork]:
    """Four running hosts. The laptop has a clone of the repository with a filled-in ``cluster.yaml``."""
    try:
        check_tools()
    except NetworkUnavailable as reason:
        if os.environ.get("CI") == "true":
            pytest.fail(f"the network of hosts cannot be built: {reason}")
        pytest.skip(f"the network of hosts cannot be built: {reason}")
    folder = tmp_path_factory.mktemp("network")
    base = Path(sys.base_prefix).resolve()
    made = VirtualNetwork(
        folder, ("laptop", HEAD, *WORKERS), [Path(p) for p in site.getsitepackages()] + [base]
    )
    try:
        made.open()
        for host in made.hosts.values():
            host.environment = {"UNFREEZE_PYTHON": str(base / "bin" / Path(sys.executable).resolve().name)}
            _environment_of_the_test_run(host.home / ".unfreeze" / "venv", base)
        _clone(made)
        yield made
    finally:
        made.close()


def _clone(made: VirtualNetwork) -> None:
    """Put the repository onto the laptop, fill in ``cluster.yaml``, and create the SSH key and the token."""
    laptop = made.hosts["laptop"]
    clone = laptop.home / "unfreeze"
    clone.mkdir()
    for name in SHIPPED:
        source = CHECKOUT / name
        if source.is_dir():
            shutil.copytree(source, clone / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, clone / name)
    file = clone / "cluster" / "cluster.yaml"
    text = file.read_text()
    for before, after in {
        "head_ip: 192.168.1.10": f"head_ip: {made.hosts[HEAD].address}",
        "[192.168.1.11, 192.168.1.12]": f"[{', '.join(made.hosts[w].address for w in WORKERS)}]",
        "ssh_user: ubuntu": "ssh_user: root",
        "~/.ssh/id_ed25519": "~/.ssh/cluster",
        "ray start --head": "ray start --head --num-cpus=0",
        "/mnt/unfreeze": SHARED,
    }.items():
        assert before in text, before
        text = text.replace(before, after)
    file.write_text(text)
    laptop.write(".ssh/cluster", (made.folder / "key" / "user").read_text(), 0o600)
    _already_installed(made)
    laptop.run("ray", "get-auth-token", "--generate")


def _environment_of_the_test_run(venv: Path, base: Path) -> None:
    """Create the environment that ``install.sh`` creates, with the packages of this test run and without unfreeze.

    Downloading all requirements onto four hosts would take minutes.
    """
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = venv / "lib" / python / "site-packages"
    packages.mkdir(parents=True)
    (venv / "pyvenv.cfg").write_text(f"home = {base / 'bin'}\ninclude-system-site-packages = false\n")
    (packages / "test-run.pth").write_text("\n".join(site.getsitepackages()))
    bin_folder = venv / "bin"
    bin_folder.mkdir()
    for name in ("python", "python3", python):
        (bin_folder / name).symlink_to(base / "bin" / python)
    for package in ("ray", "mlflow", "uvicorn"):
        for script in distribution(package).entry_points.select(group="console_scripts"):
            words = f"#!{HOME}/.unfreeze/venv/bin/python\nimport sys\n"
            words += f"from {script.module} import {script.attr} as main\n"
            file = bin_folder / script.name
            file.write_text(words + "sys.exit(main())\n")
            file.chmod(0o755)


def _already_installed(made: VirtualNetwork) -> None:
    """Mark the requirements as installed on each host, as install.sh documents it for machine images."""
    laptop = made.hosts["laptop"]
    install = f"{HOME}/unfreeze/cluster/install.sh"
    digest = laptop.run("bash", install, "--digest", f"{HOME}/unfreeze")
    for host in made.hosts.values():
        host.write(".unfreeze/venv/.unfreeze-requirements", digest)
    laptop.run("bash", install, f"{HOME}/unfreeze")
