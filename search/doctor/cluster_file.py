"""Checks a cluster file before ``ray up`` or Kubernetes starts the cluster that it describes."""

from __future__ import annotations

import copy
import logging
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from search.doctor.demand import Resources, fits, resources_text
from search.doctor.hosts import check_hosts
from search.doctor.rayjob import check_rayjob
from search.doctor.targets import CheckTargets
from search.execution.cluster.head_check import own_token
from search.execution.cluster.ray_internals import validate_cluster_file
from search.records.finding import Finding, failed, ok, warning

PLACEHOLDER = re.compile(
    r"<[^<>\s][^<>]*>|\bFILL[-_ ]?IN\b|\bYOUR[-_]|\bCHANGE[-_ ]?ME\b|\bTODO\b", re.IGNORECASE
)
"""Values that the user has to replace, such as ``<head address>`` or ``FILL_IN``."""

TOKEN = "~/.ray/auth_token"

Content = Mapping[str, Any]


def check_cluster_file(targets: CheckTargets) -> Iterator[Finding]:
    """Check ``targets.cluster_file``, a file of ``ray up`` or a RayJob for Kubernetes, with its keys and machines.

    Raises:
        ValueError: ``targets`` names no cluster file.
    """
    file = targets.cluster_file
    if file is None:
        raise ValueError("cluster_file: expected a path, received None")
    content = _read(file)
    if isinstance(content, Finding):
        yield content
        return
    if blanks := sorted(set(_placeholders(content))):
        yield failed("file", f"{file}: still to be filled in: {'; '.join(blanks)}")
    if "kind" in content:
        yield from check_rayjob(file, content, targets)
        return
    if (wrong := _schema_error(content)) is not None:
        yield failed("file", f"{file}: {wrong}")
        return
    yield ok("file", f"{file} is what `ray up` takes")
    yield from _check_keys(content)
    yield from _check_token(content)
    yield from _check_mounts(file, content)
    yield from _check_types(content, targets)
    if content["provider"]["type"] == "local" and not blanks:
        yield from check_hosts(content)


def _read(file: Path) -> Content | Finding:
    import yaml

    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        return failed("file", f"{file}: {error.strerror}")
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        return failed("file", f"{file} is no YAML: {' '.join(str(error).split())}")
    if not isinstance(content, dict):
        return failed("file", f"{file}: expected keys and values, received {type(content).__name__}")
    return content


def _placeholders(value: object, where: str = "") -> Iterator[str]:
    """Each key that still has a placeholder as its value."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _placeholders(inner, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _placeholders(inner, f"{where}[{index}]")
    elif isinstance(value, str) and (found := PLACEHOLDER.search(value)):
        yield f"{where} ({value if len(value) <= 60 else found.group()})"


def _schema_error(content: Content) -> str | None:
    """Return the error that Ray itself would raise for the file; None if it accepts it."""
    import jsonschema

    missing = [key for key in ("cluster_name", "provider") if key not in content]
    if missing or not isinstance(content["provider"], dict) or "type" not in content["provider"]:
        return f"expected {' and '.join(missing) or 'provider.type'}"
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # Ray logs advice on its own defaults here
    try:
        validate_cluster_file(copy.deepcopy(dict(content)))
    except jsonschema.ValidationError as error:
        place = ".".join(map(str, error.absolute_path)) or "top level"
        return f"{place}: {error.message.splitlines()[0][:300]}"
    except Exception as error:  # noqa: BLE001 - Ray asserts, looks up keys and raises by hand
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
    finally:
        logging.disable(before)
    return None


def _check_keys(content: Content) -> Iterator[Finding]:
    key = content.get("auth", {}).get("ssh_private_key")
    if key is None:
        return
    file = Path(key).expanduser()
    if not file.is_file():
        yield failed("key", f"auth.ssh_private_key: {key}: no such file. `ssh-keygen -f {key}` makes one")
    elif file.stat().st_mode & 0o077:
        yield failed(
            "key", f"auth.ssh_private_key: {key} can be read by others, so ssh refuses it: chmod 600 {key}"
        )
    else:
        yield ok("key", f"{key}")
    for program in ("ssh", "rsync"):
        if shutil.which(program) is None:
            yield failed("key", f"{program} is not installed on this machine: `ray up` needs it")


def _check_token(content: Content) -> Iterator[Finding]:
    mounts = content.get("file_mounts") or {}
    if _mentions("RAY_AUTH_MODE=disabled", content):
        yield warning(
            "token",
            "RAY_AUTH_MODE=disabled: anybody who reaches the head's ports can run programs on the nodes",
        )
        return
    source = next((mounts[target] for target in mounts if target.endswith("/.ray/auth_token")), None)
    if source is None:
        yield failed(
            "token", f"the token is not copied to the nodes, and a head with a token refuses workers without one: add "
            f'"{TOKEN}": "{TOKEN}" to file_mounts'
        )  # fmt: skip
        return
    file = Path(source).expanduser()
    if not file.is_file() or not file.read_text(errors="replace").strip():
        yield failed(
            "token", f"file_mounts: {source}: no such file. `ray get-auth-token --generate` makes one"
        )
    elif (own := own_token()).text and own.text != file.read_text(errors="replace").strip():
        yield warning(
            "token", f"this machine uses the token in {own.source}, and the nodes get that of {source}: unset it, or "
            "this machine can't talk to the cluster's Ray"
        )  # fmt: skip
    elif not _mentions("RAY_AUTH_MODE=token", content):
        yield warning(
            "token", "RAY_AUTH_MODE=token is missing before `ray start`: the head may admit everybody"
        )
    else:
        yield ok("token", f"{source} goes to all nodes")


def _mentions(words: str, content: Content) -> bool:
    keys = ("head_start_ray_commands", "worker_start_ray_commands", "setup_commands", "docker")
    return any(words in str(content.get(key, "")) for key in keys)


def _check_mounts(file: Path, content: Content) -> Iterator[Finding]:
    missing = [
        f"{source} (for {target})"
        for target, source in (content.get("file_mounts") or {}).items()
        if not target.endswith("/.ray/auth_token")
        and not Path(source).expanduser().exists()
        and not (file.parent / source).exists()
    ]
    if missing:
        yield failed("file", f"file_mounts: no such file or folder: {'; '.join(missing)}")


def _check_types(content: Content, targets: CheckTargets) -> Iterator[Finding]:
    """Check that a trial fits a type of node, if the file lists the resources of all types."""
    types: dict[str, Resources] = {
        name: kind.get("resources") or {}
        for name, kind in (content.get("available_node_types") or {}).items()
        if kind.get("max_workers", 1) or name == content.get("head_node_type")
    }
    if not types or not all(types.values()):
        return
    wanted = targets.trial_resources
    fitting = [name for name, has in types.items() if fits(wanted, has)]
    if fitting:
        yield ok("requests", f"a trial's {resources_text(wanted)} fit nodes of type {', '.join(fitting)}")
    else:
        yield failed(
            "requests", f"a trial asks for {resources_text(wanted)} and no node type has that ("
            + "; ".join(f"{name}: {resources_text(has)}" for name, has in types.items())
            + "): trials would stay PENDING"
        )  # fmt: skip
