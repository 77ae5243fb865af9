"""Gets backbones and data ready while the engines start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import ray

from search.backbone_choice import BACKBONE
from search.config import SearchConfig
from search.early_checks import data_options
from search.material import backbone_spec, data_folder, fingerprint
from search.progress import View
from search.record import BackboneSummary, Parameters, TaskSummary
from search.session import Session
from search.workspace import Workspace
from trainables.datasets import Task, prepare


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
    several: Mapping[str, Prepared] = field(default_factory=dict)

    @property
    def place(self) -> dict[str, str]:
        """Paths that a trial needs."""
        return {"backbone": str(self.backbone_file), "task": str(self.task.directory)}

    @property
    def blocks(self) -> dict[str, int]:
        """The number of blocks of each of several backbones."""
        return {name: len(own.backbone.blocks) for name, own in self.several.items()}

    @property
    def backbones(self) -> dict[str, BackboneSummary]:
        """What each of several backbones is."""
        return {name: own.backbone for name, own in self.several.items()}

    def of(self, params: Parameters) -> Prepared:
        """What a trial with ``params`` trains, and on what."""
        return self.several.get(str(params.get(BACKBONE)), self)


def prepare_all(config: SearchConfig, workspace: Workspace, session: Session, view: View) -> Prepared:
    """Load the backbones in the engine of the driver's own node, where their files are; then decode the data to their
    input sizes, here.
    """
    found: dict[str, Prepared] = {}
    for name in sorted(config.backbones):  # in whatever order they were given, it is one search
        file, backbone = _backbone(name, config, workspace, session, view)
        task = _task(config, backbone.input_size, [p.task for p in found.values()], workspace, view)
        found[name] = Prepared(task, _summary(task), backbone, file)
    first = next(iter(found.values()))
    prepared = replace(first, several=found) if len(found) > 1 else first
    if session.reuse.processes:
        session.fleet.work_on(first.place)
    return prepared


def _backbone(
    name: str, config: SearchConfig, workspace: Workspace, session: Session, view: View
) -> tuple[Path, BackboneSummary]:
    spec = backbone_spec(config, workspace.storage, workspace.directory / "registry-backbone", name)
    file = workspace.directory / f"backbone-{fingerprint(spec)}.keras"
    view.event(f"backbone {name}: loading")
    with session.fleet.at_home() as engine:
        found: dict[str, Any] = ray.get(engine.prepare_backbone.remote(spec, str(file)))
    return file, BackboneSummary(
        **{**found, "blocks": tuple(found["blocks"]), "input_size": tuple(found["input_size"])}
    )


def _task(
    config: SearchConfig, size: tuple[int, int], others: list[Task], workspace: Workspace, view: View
) -> Task:
    """The data at an input size; at each but the first with the splits of the first, so that all trials of a search
    learn from, and are judged by, the same images.
    """
    for known in others:
        if known.image_size == size:
            return known
    like = others[0] if others else None
    folder = data_folder(config, size) + (f"-{like.digest[:12]}" if like else "")
    task = prepare(
        config.data,
        image_size=size,
        directory=workspace.data / folder,
        options=data_options(config),
        progress=lambda done, total: view.stage("data", done, total),
        like=like,
    )
    if like is None:
        for note in task.notes:
            view.event(f"data: {note}")
    if task.skipped and like is None:
        named = "; ".join(f"{image}: {reason}" for image, reason in task.skipped[:5])
        view.event(f"data: {len(task.skipped)} images that can't be read are left out: {named}")
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
