"""What a plan needs of the hubs: fetched ahead of time, or found on this machine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from storage.errors import NotFetchedError, StorageError
from storage.fetching import Wanted, found, have
from storage.fetching.fetch import Progress
from storage.files import write_whole
from storage.models import on_a_hub
from tunery.plan import Plan, Study


def wanted(plan: Plan) -> tuple[Wanted, ...]:
    """The models and the data sets, each once."""
    models = [model for study in plan.studies if (model := model_of(study))]
    return tuple(dict.fromkeys([*models, *(data for study in plan.studies if (data := _data_of(study)))]))


def not_wanted(plan: Plan) -> tuple[str, ...]:
    """What needs no fetching, each with the reason."""
    said = [f"model {s.model.id}: {_reason(s.model.id)}" for s in plan.studies if not on_a_hub(s.model.id)]
    for study in plan.studies:
        if study.data.source == "path":
            said.append(f"data of {study.task}: the folder {study.data.root}")
        elif study.data.source == "embedded":
            said.append(f"data of {study.task}: generated")
    return tuple(dict.fromkeys(said))


def missing(plan: Plan) -> list[str]:
    """Why what the plan needs is not all on this machine; empty where it is."""
    return [why for each in wanted(plan) if (why := _why_missing(each))]


def require(plan: Plan, command: str) -> None:
    """NotFetchedError, naming what is missing and the command that fetches it."""
    if lines := missing(plan):
        listed = "\n".join(f"  {line}" for line in lines)
        raise NotFetchedError(f"offline, and not all is on this machine:\n{listed}\nwith a network: {command}")


def pinned(
    plan: Plan, kept: Path, progress: Callable[[Wanted], Progress | None]
) -> tuple[Plan, dict[str, StorageError]]:
    """The plan with the commit of each model of a hub as its revision, all fetched; and study -> why its model is not.

    The commits are kept in a file: a run that goes on later goes on with them, whatever was pushed since.
    """
    known: dict[str, str] = json.loads(kept.read_bytes()) if kept.exists() else {}
    failed: dict[Wanted, StorageError] = {}
    for model in dict.fromkeys(model for study in plan.studies if (model := model_of(study))):
        at = Wanted("model", model.id, known.get(model.name, model.revision), model.source)
        try:
            known[model.name] = have(at, progress(model)).commit
        except StorageError as error:
            failed[model] = error
    if known:
        write_whole(kept, json.dumps(known, indent=1).encode())
    studies = tuple(_pinned(study, known) for study in plan.studies)
    why = {s.name: failed[model] for s in plan.studies if (model := model_of(s)) in failed and model is not None}
    return plan.model_copy(update={"studies": studies}), why


def at_its_commit(study: Study, kept: Path) -> Study:
    """The study as its run trains it: with the commit that `pinned` has kept there as its model's revision."""
    return _pinned(study, json.loads(kept.read_bytes())) if kept.exists() else study


def _pinned(study: Study, commits: dict[str, str]) -> Study:
    model = model_of(study)
    if model is None or model.name not in commits:
        return study
    return study.model_copy(update={"model": study.model.model_copy(update={"revision": commits[model.name]})})


def model_of(study: Study) -> Wanted | None:
    """The study's model, where it is a hub's."""
    model = study.model
    return Wanted("model", model.id, model.revision, model.source) if on_a_hub(model.id) else None


def _data_of(study: Study) -> Wanted | None:
    hub = study.definition.hub
    return Wanted("data", hub.repo, None, "hub", hub.config) if study.data.source == "hub" and hub else None


def _reason(model_id: str) -> str:
    return "an installed package" if model_id.startswith("embedded:") else "a folder"


def _why_missing(each: Wanted) -> str:
    try:
        found(each)
    except NotFetchedError as error:
        return str(error)
    return ""
