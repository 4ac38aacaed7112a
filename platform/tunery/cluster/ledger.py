"""RunState from events: what the driver knows of a run, as the client will read it. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from tunery.cluster.messages import (
    Ending,
    Event,
    Failed,
    Joined,
    Known,
    Left,
    Progressed,
    Report,
    Reported,
    Seated,
    SeatName,
)
from tunery.plan import Plan
from tunery.runs import RunState, StudyState, TrialState
from tunery.standings import standings


class Ledger:
    """Folds the desk's events into the state of a run.

    An event costs the same however many trials there are; only `state` goes through all of them.
    """

    def __init__(self, state: RunState) -> None:
        self._run = state
        self._studies = {study.name: study for study in state.studies}
        """Their `trials` are out of date: see `_trials`."""
        self._trials = {study.name: {t.number: t for t in study.trials} for study in state.studies}
        self._joined: dict[SeatName, float] = {}
        """When a trial of an earlier driver has asked for a place again: seconds since the epoch."""

    @classmethod
    def begin(cls, plan: Plan, *, tracking_uri: str, now: float) -> Ledger:
        """The state of a run before its first event."""
        studies = tuple(
            StudyState(
                name=study.name,
                task=study.task,
                cell=study.cell,
                objective=study.definition.objective_name,
                direction=study.definition.direction,
                metrics=study.definition.metrics,
                planned=study.search.most_trials,
            )
            for study in plan.studies
        )
        return cls(
            RunState(
                run_id=plan.run_id, name=plan.spec.name, tracking_uri=tracking_uri, studies=studies, started_at=now
            )
        )

    # -- reading -----------------------------------------------------------------------------------------------

    @property
    def state(self) -> RunState:
        return self._run.model_copy(update={"studies": tuple(self.study(name) for name in self._studies)})

    def study(self, name: str) -> StudyState:
        trials = self._trials[name]
        return self._studies[name].model_copy(update={"trials": tuple(trials[number] for number in sorted(trials))})

    def trial(self, study: str, number: int) -> TrialState | None:
        return self._trials[study].get(number)

    def ended(self, study: str, number: int) -> bool:
        trial = self.trial(study, number)
        return trial is not None and trial.status in ("finished", "pruned", "failed")

    def running(self) -> Iterable[tuple[str, TrialState]]:
        """The trials that have begun and not ended."""
        for study, trials in self._trials.items():
            yield from ((study, trial) for trial in trials.values() if trial.status in ("waiting", "running"))

    # -- writing -----------------------------------------------------------------------------------------------

    def update(self, **changes: object) -> None:
        self._run = self._run.model_copy(update=changes)

    def update_study(self, name: str, **changes: object) -> None:
        self._studies[name] = self._studies[name].model_copy(update=changes)

    def apply(self, pack: str, event: Event) -> None:
        """Take one event in."""
        match event:
            case Joined(order, at_ms):
                name = order.name
                if self.trial(name.study, name.number) is None:
                    self._put(
                        name.study,
                        TrialState(
                            number=name.number,
                            config=order.draw,
                            origin=order.origin,
                            rerun_of=order.rerun_of,
                        ),
                    )
                else:
                    self._change(name.study, name.number, status="waiting", pack="", ended_at=None, error="")
                    self._joined[name] = at_ms / 1000
                self.update_study(name.study, status="running")
            case Seated(name, step, at_ms):
                self._seat(name, pack, step, at_ms / 1000)
            case Progressed(name, step, steps, epoch, examples, tokens):
                rates = {"examples_per_s": examples, "tokens_per_s": tokens}
                self._change(name.study, name.number, step=step, steps=steps, epoch=epoch, **rates)
            case Reported(name, report):
                self.report(name.study, name.number, report)
            case Failed(name, reason, _):
                self._change(name.study, name.number, error=reason)
            case Left(name, ending, reason, at_ms):
                self.end(name.study, name.number, ending, reason, at_ms / 1000)
            case Known():
                raise AssertionError("the driver looks a known trial up before it ends it here")

    def _seat(self, name: SeatName, pack: str, step: int, at: float) -> None:
        # What it waits for a place is not its own time: another base's packs may have the device.
        trial = self._trials[name.study][name.number]
        waited = at - self._joined.pop(name, at)
        times = {"started_at": at} if trial.started_at is None else {"paused_s": trial.paused_s + max(0.0, waited)}
        self._change(name.study, name.number, status="running", pack=pack, step=step, **times)

    def report(self, study: str, number: int, report: Report) -> None:
        changes: dict[str, object] = {
            "step": report.step,
            "steps": report.steps,
            "epoch": report.epoch,
            "epochs": report.epochs,
            "objective": report.objective,
            "examples_per_s": report.metrics.get("examples_per_s"),
            "tokens_per_s": report.metrics.get("tokens_per_s"),
        }
        if report.best:
            changes["metrics"] = report.metrics
        self._change(study, number, **changes)
        best = self._studies[study].best
        # Its objective is its best so far: it can only have risen to the top.
        self._choose_best(study, [number] if best is None else [best, number])

    def know(self, known: Known, reports: Iterable[Report]) -> None:
        """Take in a trial that had ended before this driver began."""
        study, number = known.name.study, known.name.number
        if self.trial(study, number) is None:
            trial = TrialState(number=number, config=known.draw, origin=known.origin, rerun_of=known.rerun_of)
            self._put(study, trial)
        for report in reports:
            self.report(study, number, report)
            self._change(study, number, ended_at=report.at_ms / 1000)
        self.end(study, number, known.ending, "", None)

    def end(self, study: str, number: int, ending: Ending, reason: str, at: float | None) -> None:
        changes: dict[str, object] = {"status": ending, "pack": ""}
        if reason:
            changes["error"] = reason
        if at is not None:
            changes["ended_at"] = at
        self._change(study, number, **changes)
        if ending == "failed" and number == self._studies[study].best:
            self._choose_best(study, self._trials[study])

    def settle(self, name: str) -> StudyState:
        """The study has ended: where configurations were run again, the best is the one with the best mean."""
        state = self.study(name)
        found = standings(state, direction=state.direction)
        if found and found[0].mean is not None:
            self.update_study(name, best=found[0].best_run)
        self.update_study(name, planned=len(state.trials))
        return self.study(name)

    def _change(self, study: str, number: int, **changes: object) -> None:
        self._put(study, self._trials[study][number].model_copy(update=changes))

    def _put(self, study: str, trial: TrialState) -> None:
        self._trials[study][trial.number] = trial

    def _choose_best(self, study: str, numbers: Iterable[int]) -> None:
        """Of these trials, the search's own with the best objective that did not fail; the earlier one on a tie."""
        sign = 1.0 if self._studies[study].direction == "maximise" else -1.0
        scored = [
            (sign * trial.objective, -number)
            for number in numbers
            if (trial := self._trials[study][number]).objective is not None
            and trial.status != "failed"
            and trial.rerun_of is None
        ]
        self.update_study(study, best=-max(scored)[1] if scored else None)
