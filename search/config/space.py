"""The search space as data: parameters with their ranges, in the order in which a trial suggests them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from search.config.backbone_parameter import BACKBONE, DEPTH, backbone_parameter, check_depths, limit_depth
from search.config.choices import ALL_METHODS, did_you_mean
from search.config.enqueue import read_enqueue as read_enqueue
from search.config.parameters import LABEL_FREE_WEIGHTINGS, OLD_TASK_PARAMETERS, Parameter, parameters
from search.config.ranges import EDGE_SHARE, Choice, FloatRange, IntRange, Range, SupportsSuggest
from search.config.space_file import parse_range
from search.config.strict_yaml import read_mapping
from search.config.validation_errors import format_key, format_value
from search.records.record import Parameters, ParameterValue
from trainables.errors import UsageError

__all__ = [
    "Choice",
    "FloatRange",
    "IntRange",
    "Space",
    "SupportsSuggest",
    "core_space",
    "full_space",
    "load_space",
    "make_space",
    "read_enqueue",
]

Backbones = Mapping[str, int] | None
"""Names and numbers of blocks, where a search chooses among several."""


@dataclass(frozen=True)
class Space:
    """Ranges by parameter name, for a backbone of ``blocks`` blocks under ``method``.

    Where that is a parameter of its own, the others are suggested to the methods that have a use for them.
    Where the search chooses among several ``backbones`` (name to number of blocks), ``blocks`` is the greatest of
    these numbers, and the range of ``unfreeze_depth`` ends at the blocks of the trial's own backbone.
    """

    ranges: Mapping[str, Range]
    blocks: int
    method: str = "finetune"
    backbones: Mapping[str, int] = field(default_factory=dict)

    def suggest(self, trial: SupportsSuggest) -> dict[str, ParameterValue]:
        """A configuration from ``trial`` (of Optuna), without the parameters that it has no use for."""
        params: dict[str, ParameterValue] = {}
        for name, values in self.ranges.items():
            if self._why_unused(name, params) is None:
                params[name] = self._trial_range(name, values, params).suggest(trial, name)
        return params

    def check(self, params: Mapping[str, object]) -> dict[str, ParameterValue]:
        """``params`` in the space's order and kinds; UsageError names the parameter that does not fit.

        Parameters may be left out, but not one on which another depends.
        """
        if not params:
            raise UsageError(f"expected at least one parameter of {', '.join(self.ranges)}, received none")
        for name in params:
            if name not in self.ranges:
                raise UsageError(f"{format_key(name)}: {self._unknown(name)}")
        checked: dict[str, ParameterValue] = {}
        for name, values in self.ranges.items():
            if name not in params:
                continue
            idle = self._why_unused(name, checked)
            if idle is not None:
                raise UsageError(f"{name}: {idle}, received {format_value(params[name])}")
            try:
                checked[name] = self._trial_range(name, values, checked).check(params[name])
            except UsageError as error:
                raise UsageError(f"{name}: {error}") from None
        return checked

    def parameters_at_edge(self, params: Parameters) -> tuple[str, ...]:
        """Numeric parameters whose value lies on an edge of the space that could be moved outwards."""
        return tuple(
            name
            for name, values in self.ranges.items()
            if name in params and self._edge(name, values, params)
        )

    def describe(self) -> dict[str, Any]:
        """The space as JSON values, by which a changed space is told."""
        return {
            name: {"kind": type(values).__name__, **_plain(values), **_condition(self._parameter(name))}
            for name, values in self.ranges.items()
        }

    def _parameter(self, name: str) -> Parameter:
        return _known(self.blocks, self.backbones)[name]

    def _trial_range(self, name: str, values: Range, params: Parameters) -> Range:
        """The range of ``name`` in a trial that has ``params`` already."""
        backbone = params.get(BACKBONE)
        return limit_depth(values, self.backbones[str(backbone)]) if name == DEPTH and backbone else values

    def _why_unused(self, name: str, params: Parameters) -> str | None:
        """Why a trial with ``params`` has no use for ``name``, or None."""
        if name == DEPTH and self.backbones and BACKBONE not in params:
            return f"expected {BACKBONE} beside it, on which its range depends"
        parameter = self._parameter(name)
        if "method" in self.ranges and name != "method" and parameter.methods is not None:
            if "method" not in params:
                return "expected method beside it, on which it depends"
            if not parameter.applies_to(str(params["method"])):
                return f"expected only where method is {' or '.join(parameter.methods)}"
        other = parameter.when
        if other is None or other not in self.ranges:
            return None
        if other not in params:
            return f"expected {other} beside it, on which it depends"
        return (
            None if parameter.condition_holds(params[other]) else f"expected only where {parameter.condition}"
        )

    def _unknown(self, name: str) -> str:
        known = _known(self.blocks, self.backbones)
        valid = f"expected one of {', '.join(self.ranges)}"
        if name in known and not known[name].applies_to(self.method):
            return f"the method {self.method!r} has no use for it; {valid}"
        if name in known:
            return f"not a parameter of this space; {valid}"
        return f"unknown parameter{did_you_mean(name, self.ranges)}; {valid}"

    def _edge(self, name: str, values: Range, params: Parameters) -> bool:
        value = params[name]
        if isinstance(value, bool | str):
            return False
        if name == DEPTH and self.backbones and value >= self.backbones[str(params[BACKBONE])]:
            return False  # all that there is of this backbone
        values = self._trial_range(name, values, params)
        parameter, place, (low, high) = self._parameter(name), values.position(value), values.bounds
        at_low = place <= EDGE_SHARE and (parameter.least is None or low > parameter.least)
        return at_low or (place >= 1 - EDGE_SHARE and (parameter.most is None or high < parameter.most))


def core_space(blocks: int, method: str = "finetune", **target: Any) -> Space:
    """``--space core``: the four parameters of every search, and those that make the method; see :func:`make_space`."""
    known = _known(blocks, target.get("backbones"))
    ranges = {name: p.range for name, p in known.items() if p.core}
    return _space(ranges, blocks, method, **target)


def full_space(blocks: int, method: str = "finetune", **target: Any) -> Space:
    """``--space full``: all parameters."""
    known = _known(blocks, target.get("backbones"))
    return _space({name: p.range for name, p in known.items()}, blocks, method, **target)


def load_space(path: str | Path, blocks: int, method: str = "finetune", **target: Any) -> Space:
    """The space of a YAML file; :mod:`search.config.space_file` shows how it is written.

    The file is the whole space: a parameter of the core space that it leaves out is fixed (``unfreeze_depth``
    0, ``learning_rate`` 0.001, ``head_units`` 0, ``augmentation_strength`` 0), any other is left out of the
    trials; of several backbones all are searched. What ``method`` has no use for is passed over. Raises UsageError
    with the file and the parameter.
    """
    known = _known(blocks, target.get("backbones"))
    content = read_mapping(Path(path), "space: file")
    ranges: dict[str, Range] = {n: Choice((p.fixed,)) for n, p in known.items() if p.fixed is not None}
    ranges |= {name: known[name].range for name in ("method", BACKBONE) if name in known}
    for name, value in content.items():
        where = f"space: {str(path)!r}: {format_key(name)}"
        if name not in known:
            raise UsageError(
                f"{where}: unknown parameter{did_you_mean(name, known)}; expected one of {', '.join(known)}"
            )
        try:
            ranges[name] = parse_range(value, known[name])
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from None
    kept = {name: ranges[name] for name in known if name in ranges}
    if target.get("backbones"):
        try:
            check_depths(kept, target["backbones"])
        except UsageError as error:
            raise UsageError(f"space: {str(path)!r}: {error}") from None
    return _space(kept, blocks, method, **target)


def make_space(
    space: str,
    blocks: int,
    method: str = "finetune",
    methods: Sequence[str] = (),
    unlabelled: bool = False,
    backbones: Backbones = None,
    remember: bool = False,
) -> Space:
    """The space that ``--space`` names: core, full or a YAML file.

    Under the method ``all``, ``methods`` are those that it may choose from. Of an ``unlabelled`` target nothing is
    suggested that takes its labels. ``backbones`` maps names to numbers of blocks where a search chooses among several.
    Ways to ``remember`` are suggested where there is an old task.
    """
    makers = {"core": core_space, "full": full_space}
    target: dict[str, Any] = {
        "methods": tuple(methods),
        "unlabelled": unlabelled,
        "backbones": backbones,
        "remember": remember,
    }
    if space in makers:
        return makers[space](blocks, method, **target)
    return load_space(space, blocks, method, **target)


def _space(
    ranges: Mapping[str, Range],
    blocks: int,
    method: str,
    methods: tuple[str, ...] = (),
    unlabelled: bool = False,
    backbones: Backbones = None,
    remember: bool = False,
) -> Space:
    known = _known(blocks, backbones)
    able = methods if method == ALL_METHODS else (method,)
    kept = {n: r for n, r in ranges.items() if any(map(known[n].applies_to, (method, *able)))}
    if "method" in kept:
        kept["method"] = _restrict_choice(kept["method"], able)
    if not remember:
        kept = {n: r for n, r in kept.items() if n not in OLD_TASK_PARAMETERS}
    if unlabelled:
        kept = {n: r for n, r in kept.items() if not known[n].labels}
        if "weighting" in kept:
            kept["weighting"] = _restrict_choice(kept["weighting"], LABEL_FREE_WEIGHTINGS)
    return Space(kept, blocks, method, backbones or {})


def _known(blocks: int, backbones: Backbones) -> Mapping[str, Parameter]:
    """The parameters there are, in the order in which a trial suggests them."""
    known = parameters(blocks)
    return {BACKBONE: backbone_parameter(tuple(sorted(backbones))), **known} if backbones else known


def _restrict_choice(values: Range, able: Sequence[str]) -> Range:
    """``values`` without names that can't be had here."""
    names = tuple(v for v in values.values if v in able) if isinstance(values, Choice) else ()
    if not names:
        raise UsageError(f"space: expected one of {', '.join(able)}, received none of them")
    return Choice(names)


def _plain(values: Range) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(values).items()}


def _condition(parameter: Parameter) -> dict[str, Any]:
    if parameter.when is None:
        return {}
    return {"when": f"{parameter.when} > 0" if not parameter.among else parameter.condition}
