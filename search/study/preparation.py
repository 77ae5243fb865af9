"""Prepares the backbones and the data of a search while its engines start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import ray

from search.config.parameters import BACKBONE
from search.config.search_config import SearchConfig
from search.execution.engines.jobs import PrepareBackbone
from search.execution.engines.messages import WorkbenchPaths
from search.execution.engines.session import Session
from search.ledger.workspace import Workspace
from search.records.epoch_plan import EpochPlan, make_epoch_plan
from search.records.record import BackboneSummary, Parameters, TaskSummary
from search.study.resolved_inputs import (
    DataSources,
    backbone_spec,
    data_folder,
    data_options,
    pin_version,
    pinned_versions,
    spec_fingerprint,
    target_options,
)
from search.tracking.stores import default_tracking_uri
from search.views.view import View
from trainables.data.class_names import source_notes
from trainables.data.task import Task
from trainables.modalities.image.datasets import prepare


@dataclass(frozen=True)
class Teacher:
    """The backbone from which students learn, and the data at its input size."""

    summary: BackboneSummary
    file: Path
    task: Task


@dataclass(frozen=True)
class Prepared:
    """Backbone and data of a search on disk, with their descriptions.

    Attributes:
        task: the target, at the input size of the backbone.
        backbone_file: the normalised backbone.
        by_backbone: if the search chooses among several backbones, all of them by name, each with the data at its own
            input size. The other attributes are then those of the first.
        source: the data to transfer from, if the methods use it.
        unlabelled: whether no label of the target may be read.
        remember: data of the old task that the backbone must not forget.
        teacher: the backbone to learn from, if the methods use one.
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
        """The number of blocks of each of several backbones; empty for a single backbone."""
        return {name: len(own.backbone.blocks) for name, own in self.by_backbone.items()}

    @property
    def backbones(self) -> dict[str, BackboneSummary]:
        """The description of each of several backbones; empty for a single backbone."""
        return {name: own.backbone for name, own in self.by_backbone.items()}

    def for_params(self, params: Parameters) -> Prepared:
        """Return the backbone that a trial with ``params`` trains, with its data."""
        return self.by_backbone.get(str(params.get(BACKBONE)), self)


def search_epoch_plan(config: SearchConfig, prepared: Prepared) -> EpochPlan:
    """Return how many epochs the trials of a new search have."""
    if config.epochs is not None:
        return EpochPlan(config.epochs)
    source = prepared.source.counts["train"] if prepared.source else None
    return make_epoch_plan(config.methods, prepared.task.counts["train"], source, config.batch_size)


def prepare_all(
    config: SearchConfig, workspace: Workspace, session: Session, view: View, sources: DataSources
) -> Prepared:
    """Load the backbones and decode the data to their input sizes.

    The engine on the driver's node loads the backbones, because this process has no TensorFlow; this process decodes
    the images.
    """
    return _Preparation(config, workspace, session, view, sources).run()


@dataclass
class _Preparation:
    """Prepares backbones, teacher and data of one search.

    Attributes:
        sources: of the data, opened by the early checks.
    """

    config: SearchConfig
    workspace: Workspace
    session: Session
    view: View
    sources: DataSources

    def run(self) -> Prepared:
        """Prepare everything that the search needs."""
        config = self.config
        if config.source is not None and not config.uses_source:
            self.view.event(f"source: --method {config.method} does not use it; reweight, align and all do")
        found: dict[str, Prepared] = {}
        # Sorted, so that the order of the options makes no other search: the first backbone decides the splits.
        for name in sorted(config.backbones):
            found[name] = self._for_backbone(name, list(found.values()))
        teacher = self._teacher([p.task for p in found.values()])
        self.sources.release()
        found = {name: replace(own, teacher=teacher) for name, own in found.items()}
        first = next(iter(found.values()))
        prepared = replace(first, by_backbone=found) if len(found) > 1 else first
        if self.session.spec.reuse.processes:  # else each trial has an engine of its own
            self.session.engine_pool.preload(prepared.paths)
        return prepared

    def _for_backbone(self, name: str, others: list[Prepared]) -> Prepared:
        """Prepare one backbone, and the data at its input size.

        Args:
            others: backbones that are prepared already.
        """
        config = self.config
        file, backbone = self._load_backbone(name)

        def prepare_data(
            role: str, data: str, known: list[Task], unlabelled: Sequence[str] | None = None
        ) -> Task:
            return self._task(role, data, backbone.input_size, known, unlabelled)

        source = remember = None
        if config.source is not None and config.uses_source:
            source = prepare_data("source", config.source, [p.source for p in others if p.source])
        hidden = (source.classes if source else ()) if config.unlabelled_target else None
        task = prepare_data("data", config.data, [p.task for p in others], hidden)
        if source is not None and not others:
            for note in source_notes(source.classes, task.classes):
                self.view.event(f"source: {note}")
        if config.remember is not None:
            remember = prepare_data("remember", config.remember, [p.remember for p in others if p.remember])
        return Prepared(
            task=task,
            task_summary=_summary(task),
            backbone=backbone,
            backbone_file=file,
            source=source,
            source_summary=None if source is None else _summary(source),
            unlabelled=config.unlabelled_target,
            remember=remember,
        )

    def _teacher(self, tasks: list[Task]) -> Teacher | None:
        """Prepare the teacher, and the images at its input size in the splits that students see.

        Args:
            tasks: the target at the input sizes of the backbones.
        """
        config, teacher_config = self.config, self.config.teacher_config
        if teacher_config is None:
            if config.teacher is not None:
                self.view.event(f"teacher: --method {config.method} does not use it; distill and all do")
            return None
        file, summary = self._load_backbone(str(config.teacher), teacher_config, "teacher")
        # Methods that learn from a teacher need the labels of the target, so none are hidden here.
        task = self._task("teacher's data", config.data, summary.input_size, tasks)
        return Teacher(summary, file, task)

    def _load_backbone(
        self, name: str, config: SearchConfig | None = None, role: str = "backbone"
    ) -> tuple[Path, BackboneSummary]:
        """Normalise a backbone into a file of the workspace.

        Args:
            config: with the options of the backbone; None for those of the search.
            role: ``backbone`` or ``teacher``; part of the file's name.
        """
        workspace = self.workspace
        address = self._pinned_name(name, role)
        downloads = workspace.directory / f"registry-{role}"
        spec = backbone_spec(config or self.config, workspace.storage, downloads, address)
        file = workspace.directory / f"{role}-{spec_fingerprint(spec)}.keras"
        self.view.event(f"{role} {name}: loading")
        with self.session.engine_pool.on_driver_node() as engine:
            summary: BackboneSummary = ray.get(engine.run.remote(PrepareBackbone(spec, file)))
        return file, summary

    def _pinned_name(self, name: str, role: str) -> str:
        """Return the version that an alias stands for in this search; any other name is returned as it is."""
        if not name.startswith("models:/") or "@" not in name:
            return name
        known = pinned_versions(self.config, self.workspace).get(name)
        if known is not None:
            self.view.event(f"{role} {name}: {known}, the version with which the search began")
            return known
        from search.registry.downloads import resolve_alias

        store = self.config.tracking_uri or default_tracking_uri(self.workspace.storage)
        version = resolve_alias(name, store)
        pin_version(name, version, self.workspace)
        return version

    def _task(
        self,
        role: str,
        data: str,
        size: tuple[int, int],
        known: list[Task],
        unlabelled: Sequence[str] | None = None,
    ) -> Task:
        """Prepare ``data`` at an input size.

        All trials of a search have to learn from the same images and be judged by the same images. The splits of a
        dataset are the same at every size, except in storages of earlier versions. Every size but the first therefore
        takes over the splits of the first.

        Args:
            role: what the data is, for messages.
            size: (H, W) in pixels.
            known: the same data at other sizes.
            unlabelled: class names of the source if labels are not read.
        """
        for same in known:
            if same.image_size == size:
                return same
        config, like = self.config, known[0] if known else None
        folder = data_folder(config, size, data, unlabelled) + (f"-{like.digest[:12]}" if like else "")
        options = data_options(config) if unlabelled is None else target_options(config, unlabelled)
        task = prepare(
            data,
            image_size=size,
            directory=self.workspace.data / folder,
            options=options,
            progress=lambda done, total: self.view.stage(role, done, total),
            like=like,
            source=self.sources.open(data, options),
        )
        if like is None:
            self._report(role, task)
        return task

    def _report(self, role: str, task: Task) -> None:
        """Show notes of a task and the images that were left out."""
        for note in task.notes:
            self.view.event(f"{role}: {note}")
        if task.skipped:
            named = "; ".join(f"{image}: {reason}" for image, reason in task.skipped[:5])
            self.view.event(f"{role}: {len(task.skipped)} images that can't be read are left out: {named}")


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
