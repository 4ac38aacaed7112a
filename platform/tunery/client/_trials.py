"""Which trial of a run a user means."""

from __future__ import annotations

from tunery.errors import InputError, NotFoundError
from tunery.runs import RunState


def study_with(state: RunState, study: str | None, trial: int) -> str:
    """The study that has this trial; `study` says which where there are several.

    NotFoundError where there is no such trial, InputError where `study` is needed to tell.
    """
    run = state.run_id
    studies = {each.name: each for each in state.studies}
    if not studies:
        raise NotFoundError(f"run {run} has no trials yet")
    if study is None and len(studies) > 1:
        raise InputError(f"run {run} has {len(studies)} studies: say which with --study; {', '.join(studies)}")
    name = study or next(iter(studies))
    if name not in studies:
        raise NotFoundError(f"run {run} has no study {name!r}; known: {', '.join(studies)}")
    numbers = [each.number for each in studies[name].trials]
    if trial not in numbers:
        known = f"{min(numbers)} to {max(numbers)}" if numbers else "none yet"
        raise NotFoundError(f"study {name} of run {run} has no trial {trial}; there are: {known}")
    return name
