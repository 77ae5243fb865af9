"""Chooses the winner of a search whose trials are done, trains it for the last time, and measures it on the test split.

The steps are in modules of their own: :mod:`search.study.winner.selection` chooses among the best trials by training
them with new seeds, :mod:`search.study.winner.confirmation` trains the winner, the frozen probe and the best of each
baseline on all labels, and :mod:`search.study.winner.evaluation` measures them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from search.execution.engines.messages import WorkbenchPaths
from search.records.formatting import plural, selection_phrase
from search.records.record import Outcome, Parameters, SearchRecord, Selection, TrialRecord
from search.study.phase import Phase
from search.study.phase_runner import PhaseRunner
from search.study.winner.confirmation import ConfirmationCandidate, retrain
from search.study.winner.evaluation import BaselineRuns, ConfirmedTrial, evaluate_on_test
from search.study.winner.selection import (
    Contest,
    SelectionPlan,
    ValidatedTrial,
    choose_winner,
    hold_contests,
    validate_trials,
)
from trainables.errors import SearchError
from trainables.methods.methods import PROBE


@dataclass(frozen=True)
class _Chosen:
    """What is trained for the last time.

    Attributes:
        points: the winner, or points of the front.
        baselines: the best trial of each baseline, by the place of the baseline.
        probe: the frozen probe, if it is none of the points.
        selection: how the winner was chosen.
        refit_epochs: epochs of the winner on training and validation images together; None without a refit.
        baseline_epochs: those of the baselines, likewise.
        probe_epochs: those of the probe, likewise.
    """

    points: tuple[TrialRecord, ...]
    baselines: Mapping[int, TrialRecord]
    probe: TrialRecord | None = None
    selection: Selection | None = None
    refit_epochs: int | None = None
    baseline_epochs: Mapping[int, int] = field(default_factory=dict)
    probe_epochs: int | None = None


@dataclass
class FinalTraining:
    """Trains and measures what a search ends with.

    Attributes:
        search: the phase of the search itself.
        baselines: the phases of its baselines.
    """

    runner: PhaseRunner
    search: Phase
    baselines: Sequence[Phase]

    def run(self, plan: SelectionPlan) -> list[Outcome]:
        """Return the outcome of the winner, or of each confirmed point of the front.

        Raises:
            SearchError: every configuration diverged with a new seed.
            Interrupted: the user ended the search; finished trainings are kept.
        """
        chosen = self._choose(plan)
        seeds = self.runner.config.confirm_seeds
        self.runner.view.event(_confirmation_message(chosen.points, chosen.selection, seeds))
        return self._evaluate(chosen)

    def _choose(self, plan: SelectionPlan) -> _Chosen:
        """Return what is trained for the last time, and for how many epochs."""
        search, baselines = self.search, self.baselines
        ranked = {place: baseline.record().ranked for place, baseline in enumerate(baselines)}
        best = {place: trials[0] for place, trials in ranked.items() if trials}
        if not plan.validated:
            return _Chosen(plan.finalists, best, _probe_of(search.record(), plan.finalists))
        runner = self.runner
        runner.view.event(_finalists_message(plan.finalists, runner.config.confirm_seeds))
        contests = [_contest(search, plan.ranked, plan.finalists)]
        if plan.refit:  # a baseline has one candidate, whose number of epochs is to be found
            contests += [_contest(baselines[i], ranked[i], ranked[i][:1]) for i in best]
        own, *others = hold_contests(contests, self._validate)
        selection = choose_winner(own, runner.config.metric, runner.config.direction)
        if selection is None:
            raise SearchError(
                "finalists: expected a configuration that can be trained again, but the loss of all of them diverged "
                "with new seeds"
            )
        known = {validated.trial.number: validated for validated in own if not validated.diverged}
        winner = known[selection.chosen]
        probe = next((v.trial for v in known.values() if v.trial.method == PROBE and v is not winner), None)
        if not plan.refit:
            return _Chosen((winner.trial,), best, probe, selection)
        # A baseline of which all trials diverge with new seeds is left out.
        came_through = {
            place: next((v for v in tried if not v.diverged), None)
            for place, tried in zip(best, others, strict=True)
        }
        return _Chosen(
            (winner.trial,),
            {place: v.trial for place, v in came_through.items() if v is not None},
            probe,
            selection,
            refit_epochs=winner.best_epochs,
            baseline_epochs={place: v.best_epochs for place, v in came_through.items() if v is not None},
            probe_epochs=known[probe.number].best_epochs if probe is not None else None,
        )

    def _validate(self, candidates: Sequence[ConfirmationCandidate]) -> list[ValidatedTrial]:
        runner = self.runner
        validated = validate_trials(
            candidates,
            runner.config,
            runner.session,
            self._paths,
            runner.workspace.winner,
            runner.view,
            runner.stop_request,
        )
        runner.raise_if_stopped()  # some trainings are missing then
        return validated

    def _paths(self, params: Parameters) -> WorkbenchPaths:
        return self.runner.prepared.for_params(params).paths

    def _evaluate(self, chosen: _Chosen) -> list[Outcome]:
        """Train everything that is chosen for the last time, and measure it all on the test split."""
        runner, prepared = self.runner, self.runner.prepared
        plan, baselines = self.search.epoch_plan, self.baselines
        points = [
            ConfirmationCandidate(trial, plan.of(trial.method), chosen.refit_epochs)
            for trial in chosen.points
        ]
        probes = [
            ConfirmationCandidate(trial, plan.of(trial.method), chosen.probe_epochs)
            for trial in [chosen.probe]
            if trial is not None
        ]
        references = [
            ConfirmationCandidate(
                trial, baselines[i].epoch_plan.of(trial.method), chosen.baseline_epochs.get(i)
            )
            for i, trial in chosen.baselines.items()
        ]
        runs = retrain(
            [*points, *probes, *references],
            runner.config,
            runner.session,
            self._paths,
            runner.workspace.winner,
            runner.view,
            runner.stop_request,
        )
        runner.raise_if_stopped()  # some trainings are missing then
        own, rest = runs[: len(points)], runs[len(points) :]
        measured_probes = [
            BaselineRuns(c.trial, r, 1) for c, r in zip(probes, rest[: len(probes)], strict=True)
        ]
        return evaluate_on_test(
            [
                ConfirmedTrial(c.trial, r, chosen.selection, chosen.refit_epochs)
                for c, r in zip(points, own, strict=True)
            ],
            [
                BaselineRuns(trial, r, baselines[i].limit)
                for (i, trial), r in zip(chosen.baselines.items(), rest[len(probes) :], strict=True)
            ],
            lambda params: prepared.for_params(params).task,
            runner.session,
            next(iter(measured_probes), None),
        )


def _contest(phase: Phase, ranked: tuple[TrialRecord, ...], first: tuple[TrialRecord, ...]) -> Contest:
    return Contest(first, ranked, lambda trial: phase.epoch_plan.of(trial.method))


def _probe_of(record: SearchRecord, points: Sequence[TrialRecord]) -> TrialRecord | None:
    """Return the frozen probe of a search, unless it is one of ``points``, which are confirmed as they are."""
    known = {trial.number for trial in points}
    probes = [trial for trial in record.ranked if trial.method == PROBE]
    return next((probe for probe in probes if probe.number not in known), None) if points else None


def _finalists_message(finalists: Sequence[TrialRecord], seeds: int) -> str:
    if len(finalists) == 1:
        return (
            f"finalist: trial {finalists[0].number}; training it again with {plural(seeds, 'new seed')}, to find for "
            "how many epochs"
        )
    return f"finalists: trials {_numbers(finalists)}; training each again with {plural(seeds, 'new seed')}"


def _confirmation_message(chosen: Sequence[TrialRecord], selection: Selection | None, seeds: int) -> str:
    if selection is not None:
        return f"winner: {selection_phrase(selection)}"
    if len(chosen) == 1:
        return f"winner: trial {chosen[0].number}; training it again with {plural(seeds, 'new seed')}"
    return f"front: trials {_numbers(chosen)}; training each again with {plural(seeds, 'new seed')}"


def _numbers(trials: Sequence[TrialRecord]) -> str:
    return ", ".join(str(trial.number) for trial in trials)
