"""Gets backbone and data ready while the engines start."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import ray

from search.config import SearchConfig
from search.early_checks import data_options
from search.material import backbone_spec, data_folder, fingerprint
from search.progress import View
from search.record import BackboneSummary, TaskSummary
from search.session import Session
from search.workspace import Workspace
from trainables.datasets import Task, prepare
from trainables.shared_classes import source_notes


@dataclass(frozen=True)
class Prepared:
    """Backbone and data on disk, and what they are."""

    task: Task
    task_summary: TaskSummary
    backbone: BackboneSummary
    backbone_file: Path
    source: Task | None = None
    source_summary: TaskSummary | None = None
    unlabelled: bool = False

    @property
    def place(self) -> dict[str, str]:
        """Paths that a trial needs."""
        place = {"backbone": str(self.backbone_file), "task": str(self.task.directory)}
        if self.source is not None:
            place["source"] = str(self.source.directory)
        return place | ({"unlabelled": "yes"} if self.unlabelled else {})


def prepare_all(config: SearchConfig, workspace: Workspace, session: Session, view: View) -> Prepared:
    """Load the backbone in the engine of the driver's own node, where its files are; then decode the data to its
    input size, here.
    """
    spec = backbone_spec(config, workspace.storage, workspace.directory / "registry-backbone")
    file = workspace.directory / f"backbone-{fingerprint(spec)}.keras"
    view.event(f"backbone {config.backbone}: loading")
    with session.fleet.at_home() as engine:
        found = ray.get(engine.prepare_backbone.remote(spec, str(file)))
    backbone = BackboneSummary(
        **{**found, "blocks": tuple(found["blocks"]), "input_size": tuple(found["input_size"])}
    )
    task = _prepared("data", config.data, config, workspace, backbone, view)
    source = None
    if config.source is not None and not config.uses_source:
        view.event(f"source: --method {config.method} makes no use of it; reweight, align and all do")
    elif config.source is not None:
        source = _prepared("source", config.source, config, workspace, backbone, view)
        for note in source_notes(source.classes, task.classes):
            view.event(f"source: {note}")
    prepared = Prepared(
        task,
        _summary(task),
        backbone,
        file,
        source,
        None if source is None else _summary(source),
        config.unlabelled_target,
    )
    if session.reuse.processes:
        session.fleet.work_on(prepared.place)
    return prepared


def _prepared(
    what: str, data: str, config: SearchConfig, workspace: Workspace, backbone: BackboneSummary, view: View
) -> Task:
    task = prepare(
        data,
        image_size=backbone.input_size,
        directory=workspace.data / data_folder(config, backbone.input_size, data),
        options=data_options(config),
        progress=lambda done, total: view.stage(what, done, total),
    )
    for note in task.notes:
        view.event(f"{what}: {note}")
    if task.skipped:
        named = "; ".join(f"{image}: {reason}" for image, reason in task.skipped[:5])
        view.event(f"{what}: {len(task.skipped)} images that can't be read are left out: {named}")
    return task


def _summary(task: Task) -> TaskSummary:
    return TaskSummary(
        task.name,
        task.digest,
        tuple(task.classes),
        dict(task.counts),
        task.image_size,
        task.source,
        len(task.skipped),
    )
