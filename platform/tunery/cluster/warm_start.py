"""What earlier studies found, for a new one to begin with: the champions for its task on its base."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from storage.errors import RegistryError
from storage.registry import Registry, Version
from tunery.cluster.draws import First
from tunery.cluster.messages import Value
from tunery.errors import RunError
from tunery.plan import Study
from tunery.spec import Range


def champions(study: Study, tracking_uri: str) -> Iterator[First]:
    """The values of the champions for the study's task on its base, the newest first; at most half the trials.

    Raises RunError where the registry does not answer.
    """
    try:
        registry = Registry(tracking_uri)
        found = [version for model in registry.models() if (version := registry.champion(model, study.alias))]
        alike = sorted((v for v in found if _alike(v, study)), key=lambda v: (v.created_ms, v.model), reverse=True)
        for version in alike[: study.search.trials // 2]:
            origin = f"registry {version.model}/{version.version}"
            yield First(within(registry.trained_with(version), study.search.space), origin)
    except RegistryError as error:
        raise RunError(
            f"search.warm_start: {error}; with `search.warm_start: none` a study needs no registry"
        ) from error


def _alike(version: Version, study: Study) -> bool:
    return (version.tags.get("tunery.task"), version.tags.get("tunery.base")) == (study.task, study.model.name)


def within(settings: Mapping[str, str], space: Mapping[str, Range]) -> dict[str, Value]:
    """The settings that the space can draw, as its ranges write them; what lies outside is left to the sampler."""
    drawn = {path: read(settings[path], drawn) for path, drawn in space.items() if path in settings}
    return {path: values[0] for path, values in drawn.items() if values}


def read(text: str, drawn: Range) -> tuple[Value, ...]:
    """A setting as MLflow has it, as the value of a range; empty where it is none."""
    listed = drawn.listed()
    if listed is not None and not isinstance(listed, range):
        return tuple(value for value in listed if str(value) == text)[:1]
    try:
        value: Value = int(text) if isinstance(listed, range) else float(text)
    except ValueError:
        return ()
    return (value,) if drawn.contains(value) else ()
