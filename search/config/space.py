"""The search space as data: parameters with their ranges, in the order in which a trial suggests them.

``--backbone A --backbone B`` makes the backbone a parameter of the space. A depth then has another meaning for each
backbone. The Optuna parameter stays ``unfreeze_depth``, in blocks, and its range ends at the number of blocks of the
trial's own backbone: Optuna allows numeric ranges that differ between trials. How a sampler compares depths of
different backbones is its own matter; :mod:`search.ledger.sampling.tpe` compares them as fractions of the blocks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from search.config.choices import ALL_METHODS, did_you_mean
from search.config.parameters import (
    BACKBONE,
    DEPTH,
    OLD_TASK_PARAMETERS,
    Parameter,
    backbone_parameter,
    parameters,
)
from search.config.ranges import EDGE_SHARE, Choice, FloatRange, IntRange, Range, SupportsSuggest
from search.config.space_file import parse_range
from search.config.strict_yaml import read_mapping
from search.config.validation_errors import quote_key, quote_value
from search.records.record import Parameters, ParameterValue
from trainables.errors import UsageError
from trainables.methods.parameter_values import LABEL_FREE_WEIGHTINGS

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
]

Backbones = Mapping[str, int] | None
"""Numbers of blocks by backbone name, if a search chooses among several backbones."""


@dataclass(frozen=True)
class Space:
    """The ranges of a search's parameters.

    Attributes:
        ranges: ranges by parameter name, in the order in which a trial suggests them. If ``method`` is one of them, a
            trial suggests the others only if its method uses them.
        blocks: number of blocks of the backbone; of several backbones, the largest number.
        method: method of all trials, or ``all``.
        backbones: numbers of blocks by name, if the search chooses among several backbones. The range of
            ``unfreeze_depth`` then ends at the blocks of the trial's own backbone.
        random_heads: as in :func:`search.config.parameters.parameters`.
    """

    ranges: Mapping[str, Range]
    blocks: int
    method: str = "finetune"
    backbones: Mapping[str, int] = field(default_factory=dict)
    random_heads: bool = False

    def suggest(self, trial: SupportsSuggest) -> dict[str, ParameterValue]:
        """Return a configuration suggested by an Optuna ``trial``, without the parameters that it does not use."""
        params: dict[str, ParameterValue] = {}
        for name, values in self.ranges.items():
            if self._why_unused(name, params) is None:
                params[name] = self._trial_range(name, values, params).suggest(trial, name)
        return params

    def suggest_given(self, trial: SupportsSuggest, params: Parameters) -> None:
        """Make Optuna record those of ``params`` that the space contains.

        Args:
            trial: was enqueued with these values.
            params: of a trial that need not fit the space.
        """
        for name, values in self.ranges.items():
            if name not in params:
                continue
            own = self._trial_range(name, values, params)
            with contextlib.suppress(UsageError):
                own.check(params[name])
                own.suggest(trial, name)

    def check(self, params: Mapping[str, object]) -> dict[str, ParameterValue]:
        """Return ``params`` in the space's order and types.

        Parameters may be left out, but not one on which another given one depends.

        Raises:
            UsageError: a parameter is unknown, is not used with the others, or has a value outside its range; or
                ``params`` is empty.
        """
        if not params:
            raise UsageError(f"expected at least one parameter of {', '.join(self.ranges)}, received none")
        for name in params:
            if name not in self.ranges:
                raise UsageError(f"{quote_key(name)}: {self._unknown(name)}")
        checked: dict[str, ParameterValue] = {}
        for name, values in self.ranges.items():
            if name not in params:
                continue
            reason = self._why_unused(name, checked)
            if reason is not None:
                raise UsageError(f"{name}: {reason}, received {quote_value(params[name])}")
            try:
                checked[name] = self._trial_range(name, values, checked).check(params[name])
            except UsageError as error:
                raise UsageError(f"{name}: {error}") from None
        return checked

    def parameters_at_edge(self, params: Parameters) -> tuple[str, ...]:
        """Return the numeric parameters of ``params`` whose value lies at an edge of the space that could be moved out.

        A report names them: a wider range may hold better values.
        """
        return tuple(
            name
            for name, values in self.ranges.items()
            if name in params and self._at_movable_edge(name, values, params)
        )

    def describe(self) -> dict[str, Any]:
        """Return the space as JSON values. The ledger stores them and refuses to resume with a changed space."""
        return {
            name: {"kind": type(values).__name__, **_range_json(values), **_condition(self._parameter(name))}
            for name, values in self.ranges.items()
        }

    def _parameter(self, name: str) -> Parameter:
        return _known(self.blocks, self.backbones, self.random_heads)[name]

    def _trial_range(self, name: str, values: Range, params: Parameters) -> Range:
        """Return the range of ``name`` in a trial that has suggested ``params`` so far."""
        backbone = params.get(BACKBONE)
        return limit_depth(values, self.backbones[str(backbone)]) if name == DEPTH and backbone else values

    def _why_unused(self, name: str, params: Parameters) -> str | None:
        """Return why a trial that has suggested ``params`` so far does not use ``name``, or None if it does."""
        if name == DEPTH and self.backbones and BACKBONE not in params:
            return f"expected together with {BACKBONE}, on which its range depends"
        parameter = self._parameter(name)
        if "method" in self.ranges and name != "method" and parameter.methods is not None:
            if "method" not in params:
                return "expected together with method, on which it depends"
            if not parameter.applies_to(str(params["method"])):
                return f"expected only where method is {' or '.join(parameter.methods)}"
        other = parameter.when
        # A space of a user's own may lack the other parameter; the condition then has nothing to test.
        if other is None or other not in self.ranges:
            return None
        if other not in params:
            return f"expected together with {other}, on which it depends"
        holds = parameter.condition_holds(params[other])
        return None if holds else f"expected only where {parameter.condition}"

    def _unknown(self, name: str) -> str:
        known = _known(self.blocks, self.backbones, self.random_heads)
        valid = f"expected one of {', '.join(self.ranges)}"
        if name in known and not known[name].applies_to(self.method):
            return f"the method {self.method!r} does not use it; {valid}"
        if name in known:
            return f"not a parameter of this space; {valid}"
        return f"unknown parameter{did_you_mean(name, self.ranges)}; {valid}"

    def _at_movable_edge(self, name: str, values: Range, params: Parameters) -> bool:
        value = params[name]
        if isinstance(value, bool | str):
            return False
        if name == DEPTH and self.backbones and value >= self.backbones[str(params[BACKBONE])]:
            return False  # every block of this backbone trains already
        values = self._trial_range(name, values, params)
        parameter, position, (low, high) = self._parameter(name), values.position(value), values.bounds
        if position <= EDGE_SHARE and (parameter.minimum is None or low > parameter.minimum):
            return True
        return position >= 1 - EDGE_SHARE and (parameter.maximum is None or high < parameter.maximum)


def core_space(blocks: int, method: str = "finetune", **target: Any) -> Space:
    """Return the space of ``--space core``: the four parameters of every search and those essential to the method.

    For the arguments see :func:`make_space`.
    """
    known = _known(blocks, target.get("backbones"), target.get("random_heads", False))
    ranges = {name: p.range for name, p in known.items() if p.core}
    return _space(ranges, blocks, method, **target)


def full_space(blocks: int, method: str = "finetune", **target: Any) -> Space:
    """Return the space of ``--space full``: all parameters. For the arguments see :func:`make_space`."""
    known = _known(blocks, target.get("backbones"), target.get("random_heads", False))
    return _space({name: p.range for name, p in known.items()}, blocks, method, **target)


def load_space(path: str | Path, blocks: int, method: str = "finetune", **target: Any) -> Space:
    """Return the space that a YAML file describes; :mod:`search.config.space_file` shows the syntax.

    The file is the whole space. A parameter of the core space that it leaves out is fixed at its default
    (``unfreeze_depth`` 0, ``learning_rate`` 0.001, ``head_units`` 0, ``augmentation_strength`` 0); any other parameter
    that it leaves out is absent from the trials. All of several backbones are searched. Parameters that ``method`` does
    not use are ignored. For the other arguments see :func:`make_space`.

    Raises:
        UsageError: the file cannot be read, or an entry is not a parameter with valid values; the message names both.
    """
    known = _known(blocks, target.get("backbones"), target.get("random_heads", False))
    content = read_mapping(Path(path), "space: file")
    ranges: dict[str, Range] = {n: Choice((p.default,)) for n, p in known.items() if p.default is not None}
    ranges |= {name: known[name].range for name in ("method", BACKBONE) if name in known}
    for name, value in content.items():
        where = f"space: {str(path)!r}: {quote_key(name)}"
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
    random_heads: bool = False,
) -> Space:
    """Return the space that ``--space`` names.

    Args:
        space: ``core``, ``full`` or the path of a YAML file.
        blocks: number of blocks of the backbone, or the largest number if there are several backbones.
        method: method of the trials, or ``all``.
        methods: methods that ``all`` may choose from.
        unlabelled: whether the target has no labels; the space then holds nothing that needs them.
        backbones: numbers of blocks by name, if the search chooses among several backbones.
        remember: whether there is an old task to remember; else the space holds no parameters for it.
        random_heads: as in :func:`search.config.parameters.parameters`.

    Raises:
        UsageError: the YAML file cannot be read or has a wrong entry.
    """
    makers = {"core": core_space, "full": full_space}
    target: dict[str, Any] = {
        "methods": tuple(methods),
        "unlabelled": unlabelled,
        "backbones": backbones,
        "remember": remember,
        "random_heads": random_heads,
    }
    if space in makers:
        return makers[space](blocks, method, **target)
    return load_space(space, blocks, method, **target)


def limit_depth(values: Range, blocks: int) -> Range:
    """Return the range of a depth, cut off at ``blocks``; a list of depths stays as it is."""
    if not isinstance(values, IntRange) or values.high <= blocks:
        return values
    return replace(values, high=values.low + (blocks - values.low) // values.step * values.step)


def check_depths(ranges: Mapping[str, Range], backbones: Mapping[str, int]) -> None:
    """Check that every backbone that is searched has the depths of ``ranges``.

    Raises:
        UsageError: a range begins above the number of blocks of a backbone, or a list holds a larger depth.
    """
    depths, chosen = ranges.get(DEPTH), ranges[BACKBONE]
    if depths is None or not isinstance(chosen, Choice):
        return
    for name in map(str, chosen.values):
        blocks = backbones[name]
        needed = depths.values if isinstance(depths, Choice) else depths.bounds[:1]
        beyond = [value for value in needed if isinstance(value, int | float) and value > blocks]
        if beyond:
            raise UsageError(
                f"{DEPTH}: expected depths that every backbone has (a range is cut off at the blocks of each backbone, "
                f"a list is not), received {beyond[0]:g}, but {name} has {blocks} blocks"
            )


def _space(
    ranges: Mapping[str, Range],
    blocks: int,
    method: str,
    methods: tuple[str, ...] = (),
    unlabelled: bool = False,
    backbones: Backbones = None,
    remember: bool = False,
    random_heads: bool = False,
) -> Space:
    """Return the space of those of ``ranges`` that this method and target can use."""
    known = _known(blocks, backbones, random_heads)
    usable = methods if method == ALL_METHODS else (method,)
    kept = {n: r for n, r in ranges.items() if any(map(known[n].applies_to, (method, *usable)))}
    if "method" in kept:
        kept["method"] = _restrict_choice(kept["method"], usable)
    if not remember:
        kept = {n: r for n, r in kept.items() if n not in OLD_TASK_PARAMETERS}
    if unlabelled:
        kept = {n: r for n, r in kept.items() if not known[n].needs_target_labels}
        if "weighting" in kept:
            kept["weighting"] = _restrict_choice(kept["weighting"], LABEL_FREE_WEIGHTINGS)
    return Space(kept, blocks, method, backbones or {}, random_heads)


def _known(blocks: int, backbones: Backbones, random_heads: bool = False) -> Mapping[str, Parameter]:
    """Return all parameters, in the order in which a trial suggests them."""
    known = parameters(blocks, random_heads)
    return {BACKBONE: backbone_parameter(tuple(sorted(backbones))), **known} if backbones else known


def _restrict_choice(values: Range, valid: Sequence[str]) -> Range:
    """Return ``values`` without the names that are not ``valid`` for this target."""
    names = tuple(v for v in values.values if v in valid) if isinstance(values, Choice) else ()
    if not names:
        raise UsageError(f"space: expected one of {', '.join(valid)}, received none of them")
    return Choice(names)


def _range_json(values: Range) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(values).items()}


def _condition(parameter: Parameter) -> dict[str, Any]:
    # Ledgers store these words: changing them would make every earlier search look changed.
    if parameter.when is None:
        return {}
    return {"when": f"{parameter.when} > 0" if not parameter.when_values else parameter.condition}
