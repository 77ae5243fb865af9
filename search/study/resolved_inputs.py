"""Resolves what options name: the name of the search, the backbone, versions behind aliases, folders of prepared data.

A search stays with the version that an alias stood for when it began. Otherwise ``--backbone models:/NAME@champion``
would become another backbone when a champion is promoted before the search is done.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from search.config.search_config import SearchConfig
from search.ledger.workspace import Workspace
from search.records.atomic_file import write_text
from search.tracking.stores import default_tracking_uri
from trainables.backbones.spec import BackboneSpec
from trainables.data.inputs.options import task_name

PINNED_VERSIONS_FILE = "models.json"
"""In the folder of the search: addresses with a version by the addresses that the user gave."""


def pinned_versions(config: SearchConfig, workspace: Workspace) -> dict[str, str]:
    """The versions with which the search began, by the addresses that it was given; empty before it has begun."""
    if config.fresh or (config.ledger is None and not workspace.ledger.is_file()):
        return {}
    return _read(workspace)


def pin_version(given: str, version: str, workspace: Workspace) -> None:
    """Let the address ``given`` stand for ``version`` for the rest of this search."""
    write_text(workspace.directory / PINNED_VERSIONS_FILE, json.dumps({**_read(workspace), given: version}))


def _read(workspace: Workspace) -> dict[str, str]:
    try:
        known = json.loads((workspace.directory / PINNED_VERSIONS_FILE).read_text())
    except (OSError, ValueError):
        return {}
    return {str(k): str(v) for k, v in known.items()} if isinstance(known, dict) else {}


def search_name(config: SearchConfig) -> str:
    """The name of the search: as given, or the name of its task."""
    return config.name or task_name(config.data)


def backbone_spec(
    config: SearchConfig, storage: Path, downloads: Path, backbone: str | None = None
) -> BackboneSpec:
    """The backbone that the options name; one of a model registry is downloaded.

    Args:
        storage: folder of the searches, with the MLflow store if ``config`` names none.
        downloads: folder for a backbone of a registry.
        backbone: one of the backbones of ``config``; None for the first.
    """
    name = backbone or config.backbones[0]
    if name.startswith(("models:/", "runs:/")):
        from search.registry import download_backbone

        name = str(download_backbone(name, downloads, config.tracking_uri or default_tracking_uri(storage)))
    elif Path(name).is_file():
        name = str(Path(name).absolute())
    return BackboneSpec(
        name=name,
        weights=str(Path(config.weights).absolute()) if Path(config.weights).is_file() else config.weights,
        input_size=config.input_size,
        preprocessing=config.preprocessing,
        seed=config.seed if config.weights == "none" else 0,
    )


def spec_fingerprint(spec: BackboneSpec) -> str:
    """A digest of the spec and of the files that it names. It is part of a file name in the storage."""
    facts = asdict(spec)
    for key in ("name", "weights"):
        file = Path(facts[key])
        if file.is_file():
            facts[f"{key} digest"] = hashlib.sha256(file.read_bytes()).hexdigest()
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


def data_folder(
    config: SearchConfig,
    size: tuple[int, int],
    data: str | None = None,
    unlabelled: Sequence[str] | None = None,
) -> str:
    """The name of the folder for data prepared in a certain way. Searches of one storage share these folders.

    Args:
        size: (H, W) of the images in pixels.
        data: the data; None for the target of ``config``.
        unlabelled: class names of the source if labels of the target are not read.
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
