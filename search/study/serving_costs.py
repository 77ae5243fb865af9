"""What each architecture of a search costs to serve, kept in its ledger: equal architectures have equal numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any

from search.config.ranges import Choice, IntRange, Range
from search.execution.engines.jobs import CountParameters, TimeArchitectures
from search.ledger.attributes import StudyKey
from search.ledger.ledger import Ledger
from search.records.metrics import SERVING_COSTS
from search.records.record import Parameters, ParameterValue
from search.records.stats.latency_ratios import comparable_latencies
from trainables.serving.architecture_costs import Architecture

if TYPE_CHECKING:
    from search.study.phase import Phase
    from search.study.preparation import Prepared


MAX_MEASURED_FIRST = 32
"""Most architectures that are priced before the first trial; the others when a trial first has them."""

REFERENCE_COUNT = 4
"""Known architectures beside which a new one is timed."""

BACKBONE, HEAD = "backbone", "head_units"
"""The parameters that an architecture follows from."""

LATENCY = "latency_ms"

AskEngine = Callable[[str, Sequence[Mapping[str, Any]]], Any]
"""Calls a method of an engine (``parameters`` or ``paired_times``) for architectures
(:class:`trainables.serving.architecture_costs.Architecture`, its fields)."""


@dataclass(frozen=True)
class BackboneFile:
    """A backbone that trials may have: its digest, and where its file is."""

    digest: str
    file: str


@dataclass
class ServingCosts:
    """The price list of a search.

    Args:
        ledger: where it is kept.
        objectives: of the search; only the costs among them are found out.
        backbones: by the value of the parameter ``backbone``; None stands for trials without it.
        classes: of the task.
        ask: an engine on the driver's machine.
        told: takes a line for whoever watches.
    """

    ledger: Ledger
    objectives: Sequence[str]
    backbones: Mapping[ParameterValue | None, BackboneFile]
    classes: int
    ask: AskEngine
    notify: Callable[[str], object]
    _known: dict[str, dict[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._known = dict((self.ledger.attribute(StudyKey.SERVING_COSTS) or {}).get("architectures", {}))

    def measure_all(self, ranges: Mapping[str, Range]) -> None:
        """Price what the space offers while nothing else runs, unless it is too much or known."""
        heads, backbones = _values(ranges.get(HEAD), 0), _values(ranges.get(BACKBONE), None)
        if heads and backbones and len(heads) * len(backbones) <= MAX_MEASURED_FIRST:
            self._measure([{BACKBONE: b, HEAD: h} for b, h in product(backbones, heads)])

    def costs_of(self, params: Parameters) -> dict[str, float]:
        """The costs of a model with these parameters, by objective."""
        key = self._key(params)
        if key not in self._known:
            self._measure([params])
        return {name: self._known[key][name] for name in self.objectives if name in SERVING_COSTS}

    def _measure(self, wanted: Iterable[Mapping[str, Any]]) -> None:
        new = {key: params for params in wanted if (key := self._key(params)) not in self._known}
        if not new:
            return
        asked = [self._architecture(params) for params in new.values()]
        found = {
            key: {"parameters": float(count), "megabytes": 4e-6 * count}
            for key, count in zip(new, self.ask("parameters", asked), strict=True)
        }
        if LATENCY in self.objectives:
            for key, milliseconds in zip(new, self._timed(asked), strict=True):
                found[key][LATENCY] = milliseconds
        self._known |= found
        self.ledger.set_attribute(StudyKey.SERVING_COSTS, {"architectures": self._known})

    def _timed(self, asked: Sequence[Mapping[str, Any]]) -> list[float]:
        """Latencies of new architectures, timed beside known ones: that the machine is slower now changes nothing."""
        self.notify(f"latency: timing {len(asked)} kinds of model on this machine")
        beside = {key: self._known[key] for key in sorted(self._known)[:REFERENCE_COUNT]}
        known = [self._from_key(key) for key in beside]
        times = self.ask("paired_times", [*known, *asked])
        before = {row: costs[LATENCY] for row, costs in enumerate(beside.values())}
        found = comparable_latencies(times, before)
        low, high = min(found), max(found)
        sure = f"from {low:g} to {high:g} ms" if low < high else f"{low:g} ms each, no difference is certain"
        self.notify(f"latency: {sure}")
        return found[len(known) :]

    def _architecture(self, params: Mapping[str, Any]) -> dict[str, Any]:
        file = self.backbones[params.get(BACKBONE)].file
        return {"backbone": file, "head_units": int(params.get(HEAD, 0)), "classes": self.classes}

    def _key(self, params: Mapping[str, Any]) -> str:
        return f"{self.backbones[params.get(BACKBONE)].digest}/{int(params.get(HEAD, 0))}"

    def _from_key(self, key: str) -> dict[str, Any]:
        digest, _, units = key.rpartition("/")
        file = next(known.file for known in self.backbones.values() if known.digest == digest)
        return {"backbone": file, "head_units": int(units), "classes": self.classes}


def make_serving_costs(phase: Phase, notify: Callable[[str], object]) -> ServingCosts:
    """The price list of a search that has several objectives, made as far as it can be before the first trial."""
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
        lambda method, architectures: _ask_engine(phase, method, list(architectures)),
        notify,
    )
    if phase.ledger.started() < phase.limit:
        costs.measure_all(phase.space.ranges)
    return costs


def _backbone_file(prepared: Prepared) -> BackboneFile:
    return BackboneFile(prepared.backbone.digest, str(prepared.backbone_file))


def _ask_engine(phase: Phase, method: str, architectures: Sequence[Mapping[str, Any]]) -> Any:
    """What an engine on the driver's machine answers, once it has nothing else to open."""
    import ray

    job_type = {"parameters": CountParameters, "paired_times": TimeArchitectures}[method]
    job = job_type(tuple(Architecture(**architecture) for architecture in architectures))
    with phase.session.engine_pool.on_driver_node() as engine:
        ray.get(engine.open.remote(phase.prepared.paths))
        return ray.get(engine.run.remote(job))


def _values(values: Range | None, otherwise: ParameterValue | None) -> list[Any]:
    """All values of a range if they are few; none if not."""
    if values is None:
        return [otherwise]
    if isinstance(values, Choice):
        return list(values.values)
    if isinstance(values, IntRange) and (values.high - values.low) // values.step < MAX_MEASURED_FIRST:
        return list(range(values.low, values.high + 1, values.step))
    return []
