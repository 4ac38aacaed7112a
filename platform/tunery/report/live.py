"""A run under way: the table that `platform submit` keeps on the screen, and lines for where there is no screen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.text import Text

from tunery.report import words
from tunery.runs import ENDED, FINAL, RunState, StudyState, TrialState

QUIET_S = 60.0
"""Seconds without news after which the header says how long ago the last was."""
WIDE = 110
"""Columns from which on the draws are shown too."""
_ORDER: Mapping[str, int] = {"running": 0, "finished": 1, "pruned": 2, "failed": 1, "stopped": 2, "waiting": 3}


def progress(state: RunState, *, now: float, width: int = 80, height: int = 40) -> RenderableType:
    """The run at the moment `now` (seconds since the epoch), in at most `height` lines of `width` columns."""
    parts: list[RenderableType] = [*_header(state, now), *_remarks(state)]
    used = len(parts)
    several = len(state.studies) > 1
    if several:
        parts += [Text(), _studies(state.studies)]
        used += len(state.studies) + 2
    trials = [(study, trial) for study in state.studies for trial in study.trials]
    if several:
        # The table of studies has counted the others.
        trials = [(study, trial) for study, trial in trials if trial.status == "running"]
    if trials:
        trials.sort(key=lambda pair: _ORDER[pair[1].status])
        room = max(3, height - used - 3)
        shown = trials if len(trials) <= room else trials[: room - 1]
        if not several:
            shown.sort(key=lambda pair: pair[1].number)
        parts += [Text(), _trials(shown, now=now, several=several, wide=width >= WIDE)]
        if len(shown) < len(trials):
            parts.append(Text(f"and {_tally([trial for _, trial in trials[len(shown) :]])}", "dim"))
    return Group(*parts)


def time_left(state: RunState, *, now: float) -> float | None:
    """Seconds the run will probably take yet; None while too little is done to say."""
    planned = words.planned(state)
    done = sum(_share(trial) for study in state.studies for trial in study.trials)
    elapsed = state.seconds(now)
    if state.status in ENDED or not planned or done / planned < 0.02 or elapsed <= 0:
        return None
    return elapsed * (planned - done) / done


def news(before: RunState | None, after: RunState) -> Iterator[str]:
    """What has happened between two states, a line each: for logs and pipes."""
    if after.phase and (before is None or before.phase != after.phase):
        yield after.phase
    old = {study.name: study for study in before.studies} if before else {}
    for study in after.studies:
        known = old.get(study.name)
        trials = {trial.number: trial for trial in known.trials} if known else {}
        yield from (f"{study.name}: {note}" for note in study.notes if known is None or note not in known.notes)
        for trial in study.trials:
            yield from _trial_news(study, trials.get(trial.number), trial)
        if (known is None or known.status != study.status) and study.status in ("finished", "failed", "stopped"):
            outcome = _best(study) if study.best is not None else words.first_line(study.error) or "no best trial"
            yield f"{study.name}: {study.status}; {outcome}"


def _trial_news(study: StudyState, before: TrialState | None, after: TrialState) -> Iterator[str]:
    who = f"{study.name} trial {after.number}"
    value = f"{study.objective} {words.number(after.objective)}"
    if before is not None and (before.status, before.objective) == (after.status, after.objective):
        return
    match after.status:
        case "running" if before is None or before.status != "running":
            yield f"{who}: starts; {words.draw(after.config)}" if after.config else f"{who}: starts"
        case "running":
            yield f"{who}: {value} at epoch {words.epoch(after)}"
        case "failed":
            yield f"{who}: failed; {words.first_line(after.error)}"
        case "finished" | "pruned" | "stopped":
            yield f"{who}: {after.status}; {value}, epoch {words.epoch(after)}"


def _header(state: RunState, now: float) -> Iterator[Text]:
    mark, style = words.MARKS[state.status]
    yield Text.assemble((f"{mark} ", style), (state.run_id, "bold"), "  ", (state.status, style))
    planned = words.planned(state)
    facts = [state.phase] if state.phase and state.status not in ENDED else []
    if planned:
        facts.append(f"{words.ended(state)} of {words.count(planned, 'trial')}")
    if state.started_at:
        facts.append(words.duration(state.seconds(now)))
    if (left := time_left(state, now=now)) is not None:
        facts.append(f"about {words.duration(left)} left")
    if state.status not in ENDED and state.updated_at and now - state.updated_at > QUIET_S:
        facts.append(f"last news {words.duration(now - state.updated_at)} ago")
    if facts:
        yield Text(f"  {' · '.join(facts)}", "dim", no_wrap=True, overflow="ellipsis")


def _remarks(state: RunState) -> Iterator[RenderableType]:
    if state.error:
        yield Text(f"  {words.first_line(state.error)}", "red", no_wrap=True, overflow="ellipsis")
    if len(state.studies) == 1 and state.studies[0].best is not None and state.status not in ENDED:
        yield Text(f"  best {_best(state.studies[0])}", no_wrap=True, overflow="ellipsis")


def _studies(studies: tuple[StudyState, ...]) -> RenderableType:
    table = words.table(
        "study", "status", "", "trials", "best", "trial", "objective", numbers=("trials", "best", "trial")
    )
    for study in studies:
        planned = max(study.planned, len(study.trials), 1)
        done = sum(trial.status in FINAL for trial in study.trials)
        best = _best_trial(study)
        table.add_row(
            study.name,
            words.status(study.status),
            _bar(sum(map(_share, study.trials)) / planned, ended=study.status != "running"),
            f"{done}/{planned}",
            Text(words.number(best.objective if best else None), "bold" if best else "dim"),
            str(best.number) if best else "",
            words.cut(study.objective, "dim"),
        )
    table.columns[-1].no_wrap = False
    return table


def _trials(pairs: list[tuple[StudyState, TrialState]], *, now: float, several: bool, wide: bool) -> RenderableType:
    name = pairs[0][0].objective
    # A long name would take the room of the numbers; the line above the table has it in full.
    value = "best" if several else name if 0 < len(name) <= 10 else "objective"
    columns = ["trial", "status", "pack", "", "epoch", value, "ex/s", "left"]
    table = words.table(
        *(["study"] if several else []),
        *columns,
        *(["drawn"] if wide else []),
        numbers=("trial", "epoch", value, "ex/s", "left"),
    )
    for study, trial in pairs:
        ended = trial.status not in ("running", "waiting")
        left = _trial_left(trial, now)
        best = trial.number == study.best
        row: list[RenderableType] = [
            str(trial.number),
            words.status(trial.status),
            trial.pack or "–",
            _bar(_steps(trial), ended=ended),
            words.epoch(trial),
            Text(words.number(trial.objective), "bold green" if best else ""),
            words.rate(trial.examples_per_s),
            words.duration(left) if left is not None else "",
        ]
        drawn = [words.cut(words.draw(trial.config), "dim")] if wide else []
        table.add_row(*([study.name] if several else []), *row, *drawn)
    if wide:
        table.columns[-1].no_wrap = False
    return table


def _bar(share: float, *, ended: bool) -> ProgressBar:
    return ProgressBar(
        total=1.0,
        completed=min(max(share, 0.0), 1.0),
        width=10,
        style="grey30",
        complete_style="grey62" if ended else "cyan",
        finished_style="grey62",
    )


def _steps(trial: TrialState) -> float:
    return min(trial.step / trial.steps, 1.0) if trial.steps else 0.0


def _share(trial: TrialState) -> float:
    """How much of the trial is behind it: all of it when it has ended, however early. A stopped one may go on."""
    return 1.0 if trial.status in FINAL else _steps(trial)


def _trial_left(trial: TrialState, now: float) -> float | None:
    done, elapsed = _steps(trial), trial.seconds(now)
    if trial.status != "running" or done < 0.02 or not elapsed:
        return None
    return elapsed * (1 - done) / done


def _best_trial(study: StudyState) -> TrialState | None:
    return next((trial for trial in study.trials if trial.number == study.best), None)


def _best(study: StudyState) -> str:
    best = _best_trial(study)
    if best is None:
        return f"trial {study.best}"
    drawn = f" ({words.draw(best.config)})" if best.config else ""
    return f"{study.objective} {words.number(best.objective)} by trial {best.number}{drawn}"


def _tally(trials: list[TrialState]) -> str:
    """`12 more trials: 8 finished, 4 waiting`."""
    counts = Counter(trial.status for trial in trials)
    return f"{len(trials)} more: {', '.join(f'{number} {name}' for name, number in counts.items())}"
