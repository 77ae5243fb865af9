"""Resolves what the options of a search name: the search, its backbones and their versions, its data.

A search stays with the version that an alias stood for when it began. Otherwise ``--backbone models:/NAME@champion``
would become another backbone when a champion is promoted before the search is done.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from search.config.search_config import SearchConfig
from search.ledger.workspace import Workspace
from search.records.atomic_file import write_text
from search.tracking.stores import default_tracking_uri
from trainables.backbones.spec import BackboneSpec
from trainables.data.inputs.options import DataOptions, task_name
from trainables.data.inputs.source import DataSource
from trainables.modalities.image.datasets import open_source

PINNED_VERSIONS_FILE = "models.json"
"""In the folder of the search: addresses with a version by the addresses that the user gave."""


def pinned_versions(config: SearchConfig, workspace: Workspace) -> dict[str, str]:
    """Return the versions with which the search began, by the addresses that it was given.

    The result is empty before the search has begun.
    """
    # Without a ledger no trial has used a version, so a new search takes the newest one.
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
    """Return the name of the search: as given, or the name of its task."""
    return config.name or task_name(config.data)


def backbone_spec(
    config: SearchConfig, storage: Path, downloads: Path, backbone: str | None = None
) -> BackboneSpec:
    """Return the backbone that the options name; one of a model registry is downloaded.

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
        seed=config.seed if config.weights == "none" else 0,  # only random weights depend on it
    )


def spec_fingerprint(spec: BackboneSpec) -> str:
    """Return a digest of the spec and of the files that it names. It is part of a file name in the storage."""
    facts = asdict(spec)
    for key in ("name", "weights"):
        file = Path(facts[key])
        if file.is_file():
            facts[f"{key} digest"] = hashlib.sha256(file.read_bytes()).hexdigest()
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


@dataclass
class DataSources:
    """The data sources of one search.

    The early checks list the files of each source; preparation lists them again for every input size. On network
    storage a listing of a large folder takes minutes, so each source is opened once.

    Attributes:
        directory: folder of prepared tasks; no part of a source even if it lies inside it.
    """

    directory: Path
    _opened: dict[tuple[str, bool], DataSource] = field(default_factory=dict)

    def open(self, data: str, options: DataOptions) -> DataSource:
        """Return the source ``data``, opened now or before.

        Raises:
            UsageError: ``data`` is not valid.
            DataError: the data is missing, or its files or columns are unreadable.
        """
        # All other options are the same for all sources of a search, or are not read when a source is opened.
        key = data, options.unlabelled
        if key not in self._opened:
            self._opened[key] = open_source(data, directory=self.directory, options=options)
        return self._opened[key]

    def release(self) -> None:
        """Free the listings, which take hundreds of megabytes for millions of files."""
        self._opened.clear()


def data_options(config: SearchConfig) -> DataOptions:
    """Return how the search reads and splits its data."""
    return DataOptions(
        validation_fraction=config.validation_fraction,
        test_fraction=config.test_fraction,
        seed=config.seed,
        skip_bad_images=config.skip_bad_images,
        image_column=config.image_column,
        label_column=config.label_column,
        split_column=config.split_column,
    )


def target_options(config: SearchConfig, source_classes: Sequence[str]) -> DataOptions:
    """Return how the search reads and splits its target.

    Args:
        source_classes: class names of the source; with ``--unlabelled-target`` the target takes them over.
    """
    options = data_options(config)
    if config.unlabelled_target:
        return replace(options, unlabelled=True, classes=tuple(source_classes))
    return options


def data_folder(
    config: SearchConfig,
    size: tuple[int, int],
    data: str | None = None,
    unlabelled: Sequence[str] | None = None,
) -> str:
    """Return the name of the folder for data prepared in a certain way. Searches of one storage share these folders.

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
