"""Holds what the trials of one process share: backbone, data, activations and compiled programs."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from trainables.activations.activations import DEFAULT_MEMORY_BYTES, ActivationCache
from trainables.backbones.backbone import Backbone
from trainables.backbones.precision import recast_backbone
from trainables.batched_heads.batching import HeadBatcher
from trainables.batched_heads.program import HeadProgram
from trainables.batched_heads.state import HeadShape
from trainables.compiled.program import Program
from trainables.compiled.program_pool import MAX_IDLE_PROGRAMS, ProgramPool
from trainables.compiled.shapes import AUGMENTED, ProgramShape
from trainables.data.refit import RefitTask
from trainables.data.task import Task, open_task
from trainables.data.unlabelled import UnlabelledTask
from trainables.errors import UsageError
from trainables.numerics import FLOAT32, Numerics
from trainables.reuse import Reuse
from trainables.tracing import BUILD_LOCK
from trainables.training.probe_cache import ProbeCache, ProbeFolder
from trainables.training.source_data import SourceData


@dataclass
class Workbench:
    """Everything that a trial can take over from earlier trials of the process. Safe to use from several threads.

    A program belongs to one trial at a time. Two trials of one shape that run at once get one each, unless they only
    train heads: those are trained in one batch (:mod:`trainables.batched_heads.batching`).

    Attributes:
        backbone: the pretrained model; its weights are never changed.
        task: the target; without labels if trials may not see them.
        activations: kept activations of the target's images.
        reuse: which of these things trials share.
        numerics: in which precision the backbone computes, and whether XLA compiles.
        probes: trained heads that trials may start from.
        open_source: opens the source dataset; None without one.
        open_teacher: opens the workbench of the teacher; None without one.
        open_old_task: opens the task that the backbone shall not forget; None without one.
        compiled: how many programs were built.
        idle: programs that wait for the next trial of their shape.
    """

    backbone: Backbone
    task: Task
    activations: ActivationCache
    reuse: Reuse = field(default_factory=Reuse)
    numerics: Numerics = FLOAT32
    probes: ProbeCache = field(default_factory=ProbeCache)
    open_source: Callable[[], SourceData] | None = None
    open_teacher: Callable[[], Workbench] | None = None
    open_old_task: Callable[[], SourceData] | None = None
    compiled: int = 0
    _heads: dict[HeadShape, HeadBatcher] = field(default_factory=dict)
    _training: Counter[HeadShape] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _source: SourceData | None = None
    _old_task: SourceData | None = None
    _opening: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.idle = ProgramPool(MAX_IDLE_PROGRAMS if self.reuse.programs else 0)

    @classmethod
    def open(
        cls,
        backbone: Path,
        task: Path,
        cache: Path | None = None,
        reuse: Reuse | None = None,
        numerics: Numerics = FLOAT32,
        source: Callable[[], Path] | None = None,
        unlabelled: bool = False,
        teacher: Callable[[], Workbench] | None = None,
        remember: Callable[[], Path] | None = None,
        refit: bool = False,
    ) -> Workbench:
        """Open a saved backbone and a prepared task.

        Args:
            backbone: ``.keras`` file of the normalised backbone.
            task: folder of the prepared target.
            cache: directory of activations that the processes of this machine share; None keeps them in memory only.
            reuse: what trials take over from each other; everything if None.
            numerics: in which precision the backbone computes, and whether XLA compiles.
            source: returns the folder of the prepared source; called when a trial first uses it.
            unlabelled: hide the labels of training and validation images from trials.
            teacher: returns the workbench of another backbone over the same images.
            remember: returns the folder of the prepared task that the backbone shall not forget.
            refit: train on the validation images, too.

        Raises:
            BackboneError: the backbone cannot be opened.
            DataError: the task cannot be opened.
        """
        reuse = reuse or Reuse()
        opened, data = recast_backbone(Backbone.open(backbone), numerics.precision), open_task(task)
        data = RefitTask.of(data) if refit else data
        activations = ActivationCache(
            opened,
            data,
            budget=DEFAULT_MEMORY_BYTES if reuse.activations else 0,
            directory=cache if reuse.activations else None,
            disk_budget=reuse.cache_budget,
            views=reuse.views,
        )

        # Opened on first use: most trials never touch a second dataset, and opening it reads its files.
        def open_auxiliary(folder: Callable[[], Path], classes: tuple[str, ...] | None = None) -> SourceData:
            other = open_task(folder())
            kept = ActivationCache(
                opened,
                other,
                budget=DEFAULT_MEMORY_BYTES if reuse.activations else 0,
                directory=cache if reuse.activations else None,
                disk_budget=reuse.cache_budget,
                views=reuse.views,
                stages=activations.stages,
            )
            return SourceData(other, classes or other.classes, kept)

        task_seen = UnlabelledTask.of(data) if unlabelled else data
        probes = _probes(cache, reuse)
        return cls(
            opened,
            task_seen,
            activations,
            reuse,
            numerics,
            probes,
            (lambda: open_auxiliary(source, data.classes)) if source is not None else None,
            teacher,
            (lambda: open_auxiliary(remember)) if remember is not None else None,
        )

    @property
    def source(self) -> SourceData:
        """The source dataset, opened on first use.

        Raises:
            UsageError: there is none.
        """
        if self.open_source is None:
            raise UsageError(
                "source: expected a source dataset (--source DATA), which this method needs, received none"
            )
        with self._opening:
            if self._source is None:
                self._source = self.open_source()
            return self._source

    @property
    def old_task(self) -> SourceData:
        """The task that the backbone shall not forget, opened on first use.

        Raises:
            UsageError: there is none.
        """
        if self.open_old_task is None:
            raise UsageError(
                "remember: expected an old task (--remember DATA) that is to be kept, received none"
            )
        with self._opening:
            if self._old_task is None:
                self._old_task = self.open_old_task()
            return self._old_task

    @property
    def unlabelled(self) -> bool:
        """Whether trials see no labels of the target."""
        return isinstance(self.task, UnlabelledTask)

    @property
    def teacher(self) -> Workbench:
        """The workbench of the teacher.

        Raises:
            UsageError: there is none.
        """
        if self.open_teacher is None:
            raise UsageError(
                "teacher: expected a backbone to learn from (--teacher BACKBONE), as this method needs, received none"
            )
        return self.open_teacher()

    @property
    def features(self) -> int:
        """Width of the pooled features."""
        return int(self.backbone.model.output.shape[-1])

    def acquire_program(
        self, shape: ProgramShape, head_units: int, train: str, evaluate: str
    ) -> tuple[Program | HeadProgram, float]:
        """Return a program of ``shape``, and the seconds that compiling took (0 if an idle one was taken over).

        A trial that only trains a head, on activations and with the default loss, gets a program that trains in one
        batch with others.

        Args:
            shape: what the program depends on.
            head_units: width of the head's hidden layer; 0 for a linear head.
            train: kind of the training inputs (:meth:`trainables.compiled.program.Program.compile`).
            evaluate: kind of the evaluated inputs.
        """
        fused = self.reuse.heads and shape.depth == 0 and shape.loss is None
        if fused and train not in ("uint8", AUGMENTED):
            heads = HeadShape(self.features, head_units, shape.classes, shape.batch_size)
            batcher, seconds = self.acquire_heads(heads, train)
            return HeadProgram(self.backbone, shape, batcher), seconds
        return self.acquire_own_program(shape, train, evaluate)

    def acquire_own_program(self, shape: ProgramShape, train: str, evaluate: str) -> tuple[Program, float]:
        """Return a program that no other trial uses, and the seconds that building and compiling it took."""
        program, seconds = self.idle.acquire(shape), 0.0
        if program is None:
            with BUILD_LOCK:
                began = time.perf_counter()
                program = Program(self.backbone, shape, self.activations.stages)
                seconds = time.perf_counter() - began
            with self._lock:
                self.compiled += 1
        return program, seconds + program.compile(train, evaluate)

    def acquire_heads(self, heads: HeadShape, dtype: str, train: bool = True) -> tuple[HeadBatcher, float]:
        """Return the batcher of a shape of heads on activations of ``dtype``, and the seconds that compiling took.

        Without ``train`` they are only evaluated. Call :meth:`release_heads` afterwards.
        """
        with BUILD_LOCK:
            known = self._heads.get(heads)
            batcher = known or HeadBatcher(heads)
            with self._lock:
                self.compiled += known is None
                self._heads.pop(heads, None)
                self._heads[heads] = batcher  # moved to the end: the order is that of the last use
                self._training[heads] += 1
        return batcher, batcher.compile(dtype, train)

    def release_program(self, program: Program | HeadProgram) -> None:
        """Take ``program`` back from a trial, and keep it for the next one of its shape if programs are reused."""
        if isinstance(program, HeadProgram):
            self.release_heads(program.batcher.shape)
            return
        self.idle.release(program)

    def release_heads(self, heads: HeadShape) -> None:
        """End the use that :meth:`acquire_heads` began, and drop the batchers that have been idle longest.

        Trials that run at once share a batcher even if programs are not reused; it is then dropped with its last user.
        """
        max_programs = MAX_IDLE_PROGRAMS if self.reuse.programs else 0
        with self._lock:
            self._training[heads] -= 1
            idle = [shape for shape in self._heads if not self._training[shape]]
            for shape in idle[: max(0, len(idle) - max_programs)]:
                del self._heads[shape], self._training[shape]


def _probes(cache: Path | None, reuse: Reuse) -> ProbeCache:
    """Return the cache of probes. Its files lie next to the activations, and it is switched off with them."""
    if not reuse.activations:
        return ProbeCache(budget=0)
    if cache is None or reuse.cache_budget == 0:
        return ProbeCache()
    return ProbeCache(ProbeFolder(cache / "probes"))
