"""Gets backbones and data ready while the engines start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import ray

from search.config.parameters import BACKBONE
from search.config.search_config import SearchConfig
from search.execution.engines.jobs import PrepareBackbone
from search.execution.engines.messages import WorkbenchPaths
from search.execution.engines.session import Session
from search.ledger.workspace import Workspace
from search.records.record import BackboneSummary, Parameters, TaskSummary
from search.study.early_checks import data_options, target_options
from search.study.resolved_inputs import (
    backbone_spec,
    data_folder,
    pin_version,
    pinned_versions,
    spec_fingerprint,
)
from search.tracking.stores import default_tracking_uri
from search.views.view import View
from trainables.data.class_names import source_notes
from trainables.data.task import Task
from trainables.modalities.image.datasets import prepare


@dataclass(frozen=True)
class Teacher:
    """What students learn from: a backbone, and the data at its input size."""

    summary: BackboneSummary
    file: Path
    task: Task


@dataclass(frozen=True)
class Prepared:
    """Backbone and data on disk, and what they are.

    Where a search chooses among ``several`` backbones these are all of them by name, each with the data at its own
    input size, and the rest is that of the first.
    """

    task: Task
    task_summary: TaskSummary
    backbone: BackboneSummary
    backbone_file: Path
    by_backbone: Mapping[str, Prepared] = field(default_factory=dict)
    source: Task | None = None
    source_summary: TaskSummary | None = None
    unlabelled: bool = False
    remember: Task | None = None
    teacher: Teacher | None = None

    @property
    def paths(self) -> WorkbenchPaths:
        """The files that a trial trains on."""
        teacher = self.teacher
        return WorkbenchPaths(
            backbone=self.backbone_file,
            task=self.task.directory,
            source=self.source.directory if self.source else None,
            teacher=WorkbenchPaths(teacher.file, teacher.task.directory) if teacher else None,
            remember=self.remember.directory if self.remember else None,
            unlabelled=self.unlabelled,
        )

    @property
    def block_counts(self) -> dict[str, int]:
        """The number of blocks of each of several backbones."""
        return {name: len(own.backbone.blocks) for name, own in self.by_backbone.items()}

    @property
    def backbones(self) -> dict[str, BackboneSummary]:
        """What each of several backbones is."""
        return {name: own.backbone for name, own in self.by_backbone.items()}

    def for_params(self, params: Parameters) -> Prepared:
        """What a trial with ``params`` trains, and on what."""
        return self.by_backbone.get(str(params.get(BACKBONE)), self)


def prepare_all(config: SearchConfig, workspace: Workspace, session: Session, view: View) -> Prepared:
    """Load the backbones in the engine of the driver's own node, where their files are; then decode the data to their
    input sizes, here.
    """
    if config.source is not None and not config.uses_source:
        view.event(f"source: --method {config.method} makes no use of it; reweight, align and all do")
    found: dict[str, Prepared] = {}
    for name in sorted(config.backbones):  # in whatever order they were given, it is one search
        found[name] = _prepare_for_backbone(name, list(found.values()), config, workspace, session, view)
    teacher = _prepare_teacher(config, [p.task for p in found.values()], workspace, session, view)
    found = {name: replace(own, teacher=teacher) for name, own in found.items()}
    first = next(iter(found.values()))
    prepared = replace(first, by_backbone=found) if len(found) > 1 else first
    if session.spec.reuse.processes:
        session.engine_pool.preload(prepared.paths)
    return prepared


def _prepare_teacher(
    config: SearchConfig, known: list[Task], workspace: Workspace, session: Session, view: View
) -> Teacher | None:
    """The teacher, and the images at its input size, in the splits that students see."""
    asked = config.teacher_config
    if asked is None:
        if config.teacher is not None:
            view.event(f"teacher: --method {config.method} makes no use of it; distill and all do")
        return None
    file, summary = _load_backbone(str(config.teacher), asked, workspace, session, view, "teacher")
    task = _prepare_task(
        "teacher's data", config.data, summary.input_size, known, config, workspace, view
    )  # it has labels
    return Teacher(summary, file, task)


def _prepare_for_backbone(
    name: str,
    others: list[Prepared],
    config: SearchConfig,
    workspace: Workspace,
    session: Session,
    view: View,
) -> Prepared:
    """A backbone with the data at its input size."""
    file, backbone = _load_backbone(name, config, workspace, session, view)

    def data(what: str, of: str, known: list[Task], unlabelled: Sequence[str] | None = None) -> Task:
        return _prepare_task(what, of, backbone.input_size, known, config, workspace, view, unlabelled)

    source = None
    if config.source is not None and config.uses_source:
        source = data("source", config.source, [p.source for p in others if p.source])
    hidden = (source.classes if source else ()) if config.unlabelled_target else None
    task = data("data", config.data, [p.task for p in others], hidden)
    if source is not None:
        for note in source_notes(source.classes, task.classes) if not others else ():
            view.event(f"source: {note}")
    source_summary = None if source is None else _summary(source)
    old = None
    if config.remember is not None:
        old = data("remember", config.remember, [p.remember for p in others if p.remember])
    return Prepared(
        task, _summary(task), backbone, file, {}, source, source_summary, config.unlabelled_target, old
    )


def _load_backbone(
    name: str,
    config: SearchConfig,
    workspace: Workspace,
    session: Session,
    view: View,
    what: str = "backbone",
) -> tuple[Path, BackboneSummary]:
    address = _pinned_name(name, config, workspace, view, what)
    spec = backbone_spec(config, workspace.storage, workspace.directory / f"registry-{what}", address)
    file = workspace.directory / f"{what}-{spec_fingerprint(spec)}.keras"
    view.event(f"{what} {name}: loading")
    with session.engine_pool.on_driver_node() as engine:
        found: dict[str, Any] = ray.get(engine.prepare_backbone.remote(spec, str(file)))
    return file, BackboneSummary(
        **{**found, "blocks": tuple(found["blocks"]), "input_size": tuple(found["input_size"])}
    )


def _pinned_name(name: str, config: SearchConfig, workspace: Workspace, view: View, what: str) -> str:
    """The version that an alias stands for in this search; any other name as it is."""
    if not name.startswith("models:/") or "@" not in name:
        return name
    known = pinned_versions(config, workspace).get(name)
    if known is not None:
        view.event(f"{what} {name}: {known}, as when the search began")
        return known
    from search.registry.downloads import resolve_alias

    found = resolve_alias(name, config.tracking_uri or default_tracking_uri(workspace.storage))
    pin_version(name, found, workspace)
    return found


def _prepare_task(
    what: str,
    data: str,
    size: tuple[int, int],
    known: list[Task],
    config: SearchConfig,
    workspace: Workspace,
    view: View,
    unlabelled: Sequence[str] | None = None,
) -> Task:
    """``data`` at an input size; at each but the first with the splits of the first, so that all trials of a search
    learn from, and are judged by, the same images. ``unlabelled`` are the source's classes where labels are not read.
    """
    for same in known:
        if same.image_size == size:
            return same
    like = known[0] if known else None
    folder = data_folder(config, size, data, unlabelled) + (f"-{like.digest[:12]}" if like else "")
    task = prepare(
        data,
        image_size=size,
        directory=workspace.data / folder,
        options=data_options(config) if unlabelled is None else target_options(config, unlabelled),
        progress=lambda done, total: view.stage(what, done, total),
        like=like,
    )
    if like is None:
        for note in task.notes:
            view.event(f"{what}: {note}")
    if task.skipped and like is None:
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
