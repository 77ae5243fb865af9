"""Adapts trials to Ray Tune: a thin actor in front of the engine of its node.

Tune starts, stops and reuses :class:`TrialActor`. The actor loads no TensorFlow: it forwards each step to the engine
(:mod:`search.execution.engines.engine_actor`). If processes are not reused, the actor contains an engine of its own.
Tune keeps no state that matters: the engine writes a trial's checkpoints to the search's storage, and the ledger knows
which trials exist.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ray import tune

from search.execution.engines.engine_actor import connect_engine
from search.execution.engines.engine_client import Deadline, EngineLost
from search.execution.engines.messages import EpochResult, SessionSpec, TrialRequest


@dataclass(frozen=True)
class TrialAssignment:
    """What a trial actor gets from the driver to run one trial.

    Attributes:
        number: the trial's number in the ledger.
        session: whose engines run the trial.
        request: what the engine has to run.
        timeout: seconds that an epoch may take; None for no limit.
    """

    number: int
    session: SessionSpec
    request: TrialRequest
    timeout: float | None = None

    def to_tune(self) -> dict[str, Any]:
        """Return the configuration of a Tune trial, which has to be a dictionary."""
        return {_ASSIGNMENT: self}

    @classmethod
    def from_tune(cls, config: Mapping[str, Any]) -> TrialAssignment:
        """Return the assignment in the configuration of a Tune trial."""
        assignment: TrialAssignment = config[_ASSIGNMENT]
        return assignment


class TrialActor(tune.Trainable):  # type: ignore[misc]
    """Runs one trial after another; each step is one epoch in the node's engine.

    A trial begins with its first step and not with :meth:`setup`: Tune may start an actor for a trial and then give
    the trial to another actor that has become free. The late actor must not touch the trial in the engine.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Find the engine."""
        self._assignment = TrialAssignment.from_tune(config)
        self._engine = connect_engine(self._assignment.session)
        self._key = ""

    def step(self) -> dict[str, Any]:
        """Run one epoch; if the engine is lost, report why the trial stops, and the driver decides what follows."""
        try:
            result = self._epoch()
        except EngineLost as lost:
            self._key = ""  # nothing to free: the trial died with its engine
            result = EpochResult(0, True, reason=lost.reason, error=str(lost))
        # After a loss ``instance`` still names the process that died, by which the driver attributes the
        # crash.
        return replace(result, engine=self._engine.instance).to_tune()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial without a new process."""
        # The engine is kept: it belongs to the node and its GPUs, and this process stays on them. The old
        # trial is ended, so that the engine can reuse its program.
        self.cleanup()
        self._assignment = TrialAssignment.from_tune(new_config)
        return True

    def cleanup(self) -> None:
        """Free the trial's resources in the engine."""
        if self._key:
            with contextlib.suppress(EngineLost):  # the next trial that needs the engine will notice
                self._engine.call("end", self._key)
        self._key = ""

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write down where the trial's checkpoints are: Tune insists on a file, but the engine writes them."""
        checkpoints = str(self._assignment.request.checkpoints)
        (Path(checkpoint_dir) / "where.json").write_text(json.dumps({"checkpoints": checkpoints}))

    def load_checkpoint(self, checkpoint: str) -> None:
        """Do nothing: beginning a trial reads its newest checkpoint."""

    def _epoch(self) -> EpochResult:
        deadline = Deadline(self._assignment.timeout)
        if not self._key:
            deadline = self._begin()
        result: EpochResult = self._engine.call("epoch", self._key, seconds=deadline.remaining)
        return result

    def _begin(self) -> Deadline:
        """Begin the trial in the engine. Return the deadline that its first epoch shares with the beginning."""
        self._engine.wait_until_ready()
        # Waiting for a restarted engine is not the trial's fault: its time starts now.
        deadline, request = Deadline(self._assignment.timeout), self._assignment.request
        # The key is set before the call: if the call fails or is cancelled, cleanup ends the trial in the engine.
        self._key = request.key
        self._engine.call("begin", request, seconds=deadline.remaining)
        return deadline


_ASSIGNMENT = "assignment"
"""Key of the assignment in the configuration of a Tune trial."""
