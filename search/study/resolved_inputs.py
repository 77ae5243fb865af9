"""What a search or a scoring works on, by the options that name it: the backbone, and the folder of prepared data.

The name of a search where the user gives none.

Which version an alias stood for when a search began: it goes on with that one, wherever the alias points later.

So ``--backbone models:/NAME@champion`` stays what it was when a champion is promoted before the search is done.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from search.config.search_config import SearchConfig
from search.ledger.workspace import Workspace
from search.records.atomic_file import write_text
from search.tracking.stores import default_tracking_uri
from trainables.data.inputs.options import task_name

PINNED_VERSIONS_FILE = "models.json"


def pinned_versions(config: SearchConfig, workspace: Workspace) -> dict[str, str]:
    """Addresses of versions by the addresses that the search was given; empty before it has begun."""
    if config.fresh or (config.ledger is None and not workspace.ledger.is_file()):
        return {}
    return _read(workspace)


def pin_version(given: str, version: str, workspace: Workspace) -> None:
    """Keep that ``given`` is ``version`` for this search."""
    write_text(workspace.directory / PINNED_VERSIONS_FILE, json.dumps({**_read(workspace), given: version}))


def _read(workspace: Workspace) -> dict[str, str]:
    try:
        known = json.loads((workspace.directory / PINNED_VERSIONS_FILE).read_text())
    except (OSError, ValueError):
        return {}
    return {str(k): str(v) for k, v in known.items()} if isinstance(known, dict) else {}


def search_name(config: SearchConfig) -> str:
    """Name of the search: as given, or the task's."""
    return config.name or task_name(config.data)


def backbone_spec(
    config: SearchConfig, storage: Path, downloads: Path, backbone: str | None = None
) -> dict[str, Any]:
    """The fields of a BackboneSpec; a registry address becomes a local file, in ``downloads``.

    ``backbone`` is one of those that ``config`` names; its first if it is not given.
    """
    name = backbone or config.backbones[0]
    if name.startswith(("models:/", "runs:/")):
        from search.registry import download_backbone

        name = str(download_backbone(name, downloads, config.tracking_uri or default_tracking_uri(storage)))
    elif Path(name).is_file():
        name = str(Path(name).absolute())
    weights = str(Path(config.weights).absolute()) if Path(config.weights).is_file() else config.weights
    return {
        "name": name,
        "weights": weights,
        "input_size": config.input_size,
        "preprocessing": config.preprocessing,
        "seed": config.seed if config.weights == "none" else 0,
    }


def spec_fingerprint(spec: dict[str, Any]) -> str:
    """Changes with the spec and with the files that it names."""
    facts = dict(spec)
    for key in ("name", "weights"):
        file = Path(spec[key])
        if file.is_file():
            facts[f"{key} digest"] = hashlib.sha256(file.read_bytes()).hexdigest()
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


def data_folder(
    config: SearchConfig,
    size: tuple[int, int],
    data: str | None = None,
    unlabelled: Sequence[str] | None = None,
) -> str:
    """One folder for each way to prepare data: the target, unless another ``data`` is named.

    ``unlabelled`` are the source's classes where the target's labels are not read.
    """
    data = config.data if data is None else data
    names = (
        "validation_fraction",
        "test_fraction",
        "skip_bad_images",
        "image_column",
        "label_column",
        "split_column",
    )
    source = data if data == "digits" else str(Path(data).absolute())
    facts = [source, list(size), config.seed, *(getattr(config, n) for n in names)]
    if unlabelled is not None:
        facts.append({"unlabelled": list(unlabelled)})
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]
    return f"{Path(data).stem[:40]}-{digest}"
