"""The engine: one process per machine, or per GPU, that owns TensorFlow and everything that trials share.

TensorFlow is imported once, data is loaded once, and each shape of program is compiled once, for all trials of the
machine. Trials run in the threads of the process, one epoch at a time (:mod:`search.execution.engines.trials`); other
work comes as jobs (:mod:`search.execution.engines.jobs`). The class is plain Python without Ray:
:mod:`search.execution.engines.engine_actor` puts it behind a Ray actor.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from search.execution.engines.messages import EngineIdentity, EpochResult, TrialRequest, WorkbenchPaths
from search.execution.engines.trials import EngineTrials
from search.execution.engines.workbenches import Workbenches
from trainables.numerics import choose_numerics
from trainables.reuse import Reuse

if TYPE_CHECKING:
    from search.execution.engines.jobs import Job

Result = TypeVar("Result")


class Engine:
    """Runs the trials and the jobs of one machine.

    Args:
        threads: number of threads over which TensorFlow spreads one operation.
        verbose: let TensorFlow print its messages.
        reuse: what trials share; everything by default.
        precision: one of :data:`trainables.numerics.PRECISIONS`.
        jit: one of :data:`trainables.numerics.JIT`.
        copy_data: read a copy of the data on this machine's own disk (:mod:`trainables.data.node_copy`).
        gpus: the GPUs that TensorFlow may see, by CUDA's names; None for all of them.
    """

    def __init__(
        self,
        threads: int,
        verbose: bool = False,
        reuse: Reuse | None = None,
        precision: str = "auto",
        jit: str = "auto",
        copy_data: bool = False,
        gpus: Sequence[str] | None = None,
    ) -> None:
        quiet_tensorflow(verbose)
        if gpus is not None:
            # TensorFlow reads this variable when it is imported. An empty value would mean all GPUs to some versions
            # of CUDA; -1 means none.
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus) or "-1"
        import tensorflow as tf

        with contextlib.suppress(RuntimeError):  # TensorFlow runs already in this process: its threads stay
            tf.config.threading.set_intra_op_parallelism_threads(threads)
        for device in tf.config.list_physical_devices("GPU"):
            # Otherwise TensorFlow takes the whole memory of a GPU, which other processes may share.
            tf.config.experimental.set_memory_growth(device, True)
        self._workbenches = Workbenches(reuse or Reuse(), choose_numerics(precision, jit), copy_data)
        self._trials = EngineTrials(self._workbenches)
        self._instance = uuid.uuid4().hex

    def ready(self) -> EngineIdentity:
        """Return the identity of this process; the call returns as soon as the engine has started."""
        return EngineIdentity(self._instance, os.getpid())

    def open(self, paths: WorkbenchPaths) -> None:
        """Open a workbench ahead of the first trial that needs it."""
        self._workbenches.open(paths)

    def begin(self, request: TrialRequest) -> int:
        """Begin a trial; return the number of epochs that its checkpoint has (:meth:`.EngineTrials.begin`)."""
        return self._trials.begin(request)

    def epoch(self, key: str) -> EpochResult:
        """Run one epoch of a trial (:meth:`.EngineTrials.epoch`)."""
        return self._trials.epoch(key)

    def end(self, key: str) -> None:
        """Free the resources of a trial (:meth:`.EngineTrials.end`)."""
        self._trials.end(key)

    def run(self, job: Job[Result]) -> Result:
        """Run a job."""
        return job.run(self._workbenches)

    def compiled(self) -> int:
        """Return how many programs this engine has compiled."""
        return self._workbenches.compiled


def quiet_tensorflow(verbose: bool) -> None:
    """Keep TensorFlow's start-up messages off the screen. Call this before TensorFlow is imported."""
    if not verbose:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
        os.environ.setdefault("ABSL_MIN_LOG_LEVEL", "3")
