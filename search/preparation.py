"""Gets backbone and data ready while the engines start."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from search.config import SearchConfig
from search.early_checks import data_options
from search.progress import View
from search.record import BackboneSummary, TaskSummary
from search.session import Session
from search.stores import default_tracking_uri
from search.workspace import Workspace
from trainables.datasets import Task, prepare


@dataclass(frozen=True)
class Prepared:
    """Backbone and data on disk, and what they are."""

    task: Task
    task_summary: TaskSummary
    backbone: BackboneSummary
    backbone_file: Path

    @property
    def place(self) -> dict[str, str]:
        """Paths that a trial needs."""
        return {"backbone": str(self.backbone_file), "task": str(self.task.directory)}


def prepare_all(config: SearchConfig, workspace: Workspace, session: Session, view: View) -> Prepared:
    """Load the backbone in the engine of the driver's own node, where its files are; then decode the data to its
    input size, here.
    """
    spec = _spec(config, workspace)
    file = workspace.directory / f"backbone-{_fingerprint(spec)}.keras"
    view.event(f"backbone {config.backbone}: loading")
    with session.fleet.at_home() as engine:
        found = ray.get(engine.prepare_backbone.remote(spec, str(file)))
    backbone = BackboneSummary(
        **{**found, "blocks": tuple(found["blocks"]), "input_size": tuple(found["input_size"])}
    )
    task = prepare(
        config.data,
        image_size=backbone.input_size,
        directory=workspace.data / _data_folder(config, backbone.input_size),
        options=data_options(config),
        progress=lambda done, total: view.stage("data", done, total),
    )
    for note in task.notes:
        view.event(f"data: {note}")
    if task.skipped:
        named = "; ".join(f"{image}: {reason}" for image, reason in task.skipped[:5])
        view.event(f"data: {len(task.skipped)} images that can't be read are left out: {named}")
    summary = TaskSummary(
        task.name,
        task.digest,
        tuple(task.classes),
        dict(task.counts),
        task.image_size,
        task.source,
        len(task.skipped),
    )
    prepared = Prepared(task, summary, backbone, file)
    if session.reuse.processes:
        session.fleet.work_on(prepared.place)
    return prepared


def _spec(config: SearchConfig, workspace: Workspace) -> dict[str, Any]:
    """The fields of a BackboneSpec; a registry address becomes a local file."""
    name = config.backbone
    if name.startswith(("models:/", "runs:/")):
        from search.registry import download_backbone

        store = config.tracking_uri or default_tracking_uri(workspace.storage)
        name = str(download_backbone(name, workspace.directory / "registry-backbone", store))
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


def _fingerprint(spec: dict[str, Any]) -> str:
    """Changes with the spec and with the files that it names."""
    facts = dict(spec)
    for key in ("name", "weights"):
        file = Path(spec[key])
        if file.is_file():
            facts[f"{key} digest"] = hashlib.sha256(file.read_bytes()).hexdigest()
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


def _data_folder(config: SearchConfig, size: tuple[int, int]) -> str:
    """One folder for each way to prepare data."""
    names = (
        "validation_fraction",
        "test_fraction",
        "skip_bad_images",
        "image_column",
        "label_column",
        "split_column",
    )
    source = config.data if config.data == "digits" else str(Path(config.data).absolute())
    facts = [source, list(size), config.seed, *(getattr(config, n) for n in names)]
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]
    return f"{Path(config.data).stem[:40]}-{digest}"
