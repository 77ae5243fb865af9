"""Measures what each architecture of a search costs to serve, and keeps the costs in the ledger.

With costs as objectives, trials of the same architecture must have the same costs, on whichever machine and day they
run. Each architecture is therefore measured once in the life of a search.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any

from search.config.ranges import Choice, IntRange, Range
from search.execution.engines.jobs import CountParameters, TimeArchitectures
from search.ledger.attributes import StudyKey
from search.ledger.ledger import Ledger
from search.records.formatting import plural
from search.records.metrics import SERVING_COSTS
from search.records.record import Parameters, ParameterValue
from search.records.stats.latency_ratios import comparable_latencies
from trainables.serving.architecture_costs import Architecture

if TYPE_CHECKING:
    from search.study.phase import Phase
    from search.study.preparation import Prepared


MAX_MEASURED_FIRST = 32
"""Most architectures that are measured before the first trial; others are measured when a trial first has them."""

REFERENCE_COUNT = 4
"""Known architectures that are timed again in turn with a new one."""

BACKBONE, HEAD = "backbone", "head_units"
"""The parameters of a trial that determine its architecture."""

LATENCY = "latency_ms"

ArchitectureJob = CountParameters | TimeArchitectures
RunJob = Callable[[ArchitectureJob], Any]
"""Runs a job on an engine of the driver's machine and returns its result."""


@dataclass(frozen=True)
class BackboneFile:
    """A backbone that trials may have: the digest of its weights and structure, and the path of its file."""

    digest: str
    file: str


@dataclass
class ServingCosts:
    """The serving costs of the architectures of one search.

    Args:
        ledger: keeps the costs.
        objectives: of the search; only the costs among them are measured.
        backbones: by the value of the parameter ``backbone``; None stands for trials without that parameter.
        classes: number of classes of the task.
        run_job: measures architectures.
        notify: receives a line for the user.
    """

    ledger: Ledger
    objectives: Sequence[str]
    backbones: Mapping[ParameterValue | None, BackboneFile]
    classes: int
    run_job: RunJob
    notify: Callable[[str], object]
    _known: dict[str, dict[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._known = dict((self.ledger.attribute(StudyKey.SERVING_COSTS) or {}).get("architectures", {}))

    def measure_all(self, ranges: Mapping[str, Range]) -> None:
        """Measure all architectures of the search space, unless there are too many or they are known.

        This is done before the first trial, because nothing else runs then.

        Args:
            ranges: of the parameters, by name.
        """
        heads, backbones = _values(ranges.get(HEAD), 0), _values(ranges.get(BACKBONE), None)
        if heads and backbones and len(heads) * len(backbones) <= MAX_MEASURED_FIRST:
            self._measure([{BACKBONE: b, HEAD: h} for b, h in product(backbones, heads)])

    def costs_of(self, params: Parameters) -> dict[str, float]:
        """Return the costs of a model with these parameters, by objective. A new architecture is measured now."""
        key = self._key(params)
        if key not in self._known:
            self._measure([params])
        return {name: self._known[key][name] for name in self.objectives if name in SERVING_COSTS}

    def _measure(self, wanted: Iterable[Mapping[str, Any]]) -> None:
        new = {key: params for params in wanted if (key := self._key(params)) not in self._known}
        if not new:
            return
        architectures = [self._architecture(params) for params in new.values()]
        counts = self.run_job(CountParameters(tuple(architectures)))
        found = {
            key: {"parameters": float(count), "megabytes": 4e-6 * count}  # float32
            for key, count in zip(new, counts, strict=True)
        }
        if LATENCY in self.objectives:
            for key, milliseconds in zip(new, self._latencies(architectures), strict=True):
                found[key][LATENCY] = milliseconds
        self._known |= found
        self.ledger.set_attribute(StudyKey.SERVING_COSTS, {"architectures": self._known})

    def _latencies(self, architectures: Sequence[Architecture]) -> list[float]:
        """Milliseconds of new architectures, comparable with those of known ones.

        Some known architectures are timed in turn with the new ones. The new times are scaled by theirs, so that it
        does not matter whether the machine is slower now than it was.
        """
        self.notify(f"latency: timing {plural(len(architectures), 'architecture')} on this machine")
        references = {key: self._known[key] for key in sorted(self._known)[:REFERENCE_COUNT]}
        known = [self._from_key(key) for key in references]
        times = self.run_job(TimeArchitectures((*known, *architectures)))
        before = {row: costs[LATENCY] for row, costs in enumerate(references.values())}
        found = comparable_latencies(times, before)
        low, high = min(found), max(found)
        span = f"from {low:g} to {high:g} ms" if low < high else f"{low:g} ms each, no significant difference"
        self.notify(f"latency: {span}")
        return found[len(known) :]

    def _architecture(self, params: Mapping[str, Any]) -> Architecture:
        file = self.backbones[params.get(BACKBONE)].file
        return Architecture(file, int(params.get(HEAD, 0)), self.classes)

    def _key(self, params: Mapping[str, Any]) -> str:
        """Return the key of an architecture in the ledger. It names no path, because a storage may be moved."""
        return f"{self.backbones[params.get(BACKBONE)].digest}/{int(params.get(HEAD, 0))}"

    def _from_key(self, key: str) -> Architecture:
        digest, _, units = key.rpartition("/")
        file = next(known.file for known in self.backbones.values() if known.digest == digest)
        return Architecture(file, int(units), self.classes)


def make_serving_costs(phase: Phase, notify: Callable[[str], object]) -> ServingCosts:
    """Return the serving costs of a search with several objectives.

    They are measured as far as possible before the first trial.
    """
    prepared, config = phase.prepared, phase.config
    files: dict[ParameterValue | None, BackboneFile] = {
        name: _backbone_file(own) for name, own in prepared.by_backbone.items()
    }
    files[None] = _backbone_file(prepared)
    costs = ServingCosts(
        phase.ledger,
        config.objectives,
        files,
        len(prepared.task_summary.classes),
        lambda job: _run_on_driver_node(phase, job),
        notify,
    )
    if phase.ledger.started() < phase.limit:
        costs.measure_all(phase.space.ranges)
    return costs


def _backbone_file(prepared: Prepared) -> BackboneFile:
    return BackboneFile(prepared.backbone.digest, str(prepared.backbone_file))


def _run_on_driver_node(phase: Phase, job: ArchitectureJob) -> Any:
    """Run a job on the driver's machine, so that all times of a search come from one machine."""
    import ray

    with phase.session.engine_pool.on_driver_node() as engine:
        # The engine opens backbone and data first: doing so at the same time would disturb the times.
        ray.get(engine.open.remote(phase.prepared.paths))
        return ray.get(engine.run.remote(job))


def _values(values: Range | None, default: ParameterValue | None) -> list[Any]:
    """Return all values of a range, or no value if there are many; ``default`` for a parameter that is not searched."""
    if values is None:
        return [default]
    if isinstance(values, Choice):
        return list(values.values)
    if isinstance(values, IntRange) and (values.high - values.low) // values.step < MAX_MEASURED_FIRST:
        return list(range(values.low, values.high + 1, values.step))
    return []
