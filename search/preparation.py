"""Gets backbone and data ready while the engines start."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
class Teacher:
    """What students learn from: a backbone, and the data at its input size."""

    summary: BackboneSummary
    file: Path
    task: Task


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
    teacher: Teacher | None = None

    @property
    def place(self) -> dict[str, str]:
        """Paths that a trial needs."""
        place = {"backbone": str(self.backbone_file), "task": str(self.task.directory)}
        if self.source is not None:
            place["source"] = str(self.source.directory)
        if self.teacher is not None:
            place |= {"teacher": str(self.teacher.file), "teacher_task": str(self.teacher.task.directory)}
        return place | ({"unlabelled": "yes"} if self.unlabelled else {})


def prepare_all(config: SearchConfig, workspace: Workspace, session: Session, view: View) -> Prepared:
    """Load the backbone in the engine of the driver's own node, where its files are; then decode the data to its
    input size, here.
    """
    spec = backbone_spec(config, workspace.storage, workspace.directory / "registry-backbone")
    file = workspace.directory / f"backbone-{fingerprint(spec)}.keras"
    view.event(f"backbone {config.backbone}: loading")
    backbone = _loaded(spec, file, session)
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
        _teacher(config, workspace, session, task, view),
    )
    if session.reuse.processes:
        session.fleet.work_on(prepared.place)
    return prepared


def _loaded(spec: dict[str, Any], file: Path, session: Session) -> BackboneSummary:
    with session.fleet.at_home() as engine:
        found = ray.get(engine.prepare_backbone.remote(spec, str(file)))
    return BackboneSummary(
        **{**found, "blocks": tuple(found["blocks"]), "input_size": tuple(found["input_size"])}
    )


def _teacher(
    config: SearchConfig, workspace: Workspace, session: Session, task: Task, view: View
) -> Teacher | None:
    """The teacher, and the images of ``task`` at its input size, in the same splits."""
    asked = config.as_teacher
    if asked is None:
        if config.teacher is not None:
            view.event(f"teacher: --method {config.method} makes no use of it; distill and all do")
        return None
    spec = backbone_spec(asked, workspace.storage, workspace.directory / "registry-teacher")
    file = workspace.directory / f"teacher-{fingerprint(spec)}.keras"
    view.event(f"teacher {config.teacher}: loading")
    found = _loaded(spec, file, session)
    if found.input_size == tuple(task.image_size):
        return Teacher(found, file, task)
    seen = prepare(
        config.data,
        image_size=found.input_size,
        directory=workspace.data / f"{data_folder(config, found.input_size)}-{task.digest[:12]}",
        options=data_options(config),
        progress=lambda done, total: view.stage("teacher's data", done, total),
        like=task,
    )
    return Teacher(found, file, seen)


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
