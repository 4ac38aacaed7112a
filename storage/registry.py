"""The model registry: adapters as versions of a model, and the alias that says which one is the champion.

An alias moves in three steps, each one write: the intention is noted, the alias is set (this is what counts), the
note is completed. A process killed between them leaves the alias old or new, and the next one that changes the
model's aliases completes the note, or removes it where the alias never moved. The notes are tags of the registered
model, in the order of their numbers and not of anybody's clock.

One process at a time changes a model's aliases. Over a sqlite file and over a server's URL that holds for the
processes of one machine (a lock file), over a Postgres URL for all machines (an advisory lock, which goes with its
connection). A server has no compare-and-set to build more on; let one machine's driver promote there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from difflib import get_close_matches
from functools import cached_property, partial
from pathlib import Path

from storage.errors import ChampionMovedError, NotRegisteredError, RegistryError, RegistryUnreachableError
from storage.mlflow_connection import (
    MlflowClient,
    MlflowException,
    connect,
    is_transient,
    one_at_a_time,
    retried,
    told,
    without_password,
)
from storage.promotions import Decision, Note, Promotion, Version, holders, notes, version_of

__all__ = ["ANY", "CHAMPION", "Decision", "Promotion", "Registry", "Version"]

CHAMPION = "champion"
ANY = "*"
"""For `expected`: whatever version holds the alias."""


class Registry:
    """The registry at one tracking URI. Everything raises RegistryUnreachableError where it does not answer."""

    def __init__(self, tracking_uri: str, *, clock: Callable[[], float] = time.time) -> None:
        self._uri = tracking_uri
        self._clock = clock

    @cached_property
    def _client(self) -> MlflowClient:
        return connect(self._uri)

    def register(self, model: str, *, run_id: str, artifact_path: str, tags: Mapping[str, str]) -> Version:
        """Make the adapter among a run's artifacts a version of the model. A second call finds the first's."""
        source = f"runs:/{run_id}/{artifact_path}"
        with self._asking(), one_at_a_time(self._uri, f"registry {model}"):
            for found in self._client.search_model_versions(f"run_id = '{run_id}'"):
                if found.name == model and found.source == source:
                    return self.version(model, found.version)
            self._create_model(model)
            made = self._client.create_model_version(model, source, run_id=run_id, tags=dict(tags))
            return self.version(model, made.version)

    def models(self) -> tuple[str, ...]:
        """The names of the registered models, sorted."""
        with self._asking():
            return tuple(sorted(model.name for model in self._client.search_registered_models(max_results=1000)))

    def versions(self, model: str) -> tuple[Version, ...]:
        """All versions of the model, oldest first. Empty where there is no such model."""
        with self._asking():
            found = self._client.search_model_versions(f"name = '{_plain(model)}'", max_results=10_000)
            if not found:
                return ()
            held = self._client.get_registered_model(model).aliases  # which a search leaves out
            return tuple(
                replace(
                    version_of(each), aliases=tuple(sorted(a for a, v in held.items() if str(v) == str(each.version)))
                )
                for each in sorted(found, key=lambda each: int(each.version))
            )

    def version(self, model: str, version: str | int) -> Version:
        """NotRegisteredError where there is no such version."""
        if not str(version).isdigit():
            raise NotRegisteredError(f"{version!r} is no version: versions of {model} are numbers")
        with self._asking():
            try:
                return version_of(retried(lambda: self._client.get_model_version(model, str(version))))
            except MlflowException as error:
                if is_transient(error):
                    raise
                raise self._not_registered(model, f"version {version}") from error

    def champion(self, model: str, alias: str = CHAMPION) -> Version | None:
        """What holds the alias; None where nothing does, or there is no such model."""
        with self._asking():
            try:
                return version_of(retried(lambda: self._client.get_model_version_by_alias(model, alias)))
            except MlflowException as error:
                if is_transient(error):
                    raise
                return None

    def resolve(self, name: str, *, alias: str = CHAMPION) -> Version:
        """The version meant by `model@alias`, `model/3`, or `model`, which is `model@champion`.

        NotRegisteredError, saying what there is.
        """
        model, at, named = name.partition("@")
        if not at and "/" in name:
            model, _, number = name.rpartition("/")
            return self.version(model, number)
        found = self.champion(model, named if at else alias)
        if found is None:
            raise self._not_registered(model, f"alias {named if at else alias!r}")
        return found

    def promote(
        self,
        model: str,
        version: str,
        alias: str = CHAMPION,
        *,
        by: str,
        why: str,
        verdict: Decision = "promoted",
        expected: str | None = ANY,
        objective: str = "",
        from_value: float | None = None,
        to_value: float | None = None,
    ) -> Promotion:
        """Move the alias to a version; nothing is noted where it is there already.

        `expected`: the version (None: none) the decision took for the alias's holder; ChampionMovedError where
        another holds it by now. NotRegisteredError where the version is not there.
        """
        with self._asking(), one_at_a_time(self._uri, f"registry {model}"):
            self.version(model, version)
            holder = self._settled(model, alias)
            _check(model, alias, holder, expected)
            move = Promotion(model, alias, holder, version, self._now_ms(), by, why, verdict, objective,
                             from_value, to_value)  # fmt: skip
            if holder != version:
                self._move(move)
            return move

    def refuse(
        self,
        model: str,
        version: str,
        alias: str = CHAMPION,
        *,
        by: str,
        why: str,
        expected: str | None = ANY,
        objective: str = "",
        from_value: float | None = None,
        to_value: float | None = None,
    ) -> Promotion:
        """Note that a version was not promoted, and why. `expected` is as in `promote`."""
        with self._asking(), one_at_a_time(self._uri, f"registry {model}"):
            holder = self._settled(model, alias)
            _check(model, alias, holder, expected)
            refusal = Promotion(model, alias, holder, version, self._now_ms(), by, why, "refused", objective,
                                from_value, to_value)  # fmt: skip
            self._write(Note(self._next_number(model), True, refusal))
            return refusal

    def rollback(self, model: str, alias: str = CHAMPION, *, by: str = "", why: str = "") -> Promotion:
        """Give the alias back to the version that held it before; a second rollback goes one further.

        NotRegisteredError where nothing held it before.
        """
        with self._asking(), one_at_a_time(self._uri, f"registry {model}"):
            holder = self._settled(model, alias)
            there = {version.version for version in self.versions(model)}
            before = [v for v in holders(self.history(model), alias, holder) if v != holder and v in there]
            if not before:
                raise NotRegisteredError(f"nothing to roll {model}@{alias} back to: no other version has held it")
            move = Promotion(model, alias, holder, before[-1], self._now_ms(), by, why, "rollback")
            self._move(move)
            return move

    def history(self, model: str) -> tuple[Promotion, ...]:
        """Every decision about the model's aliases, oldest first. NotRegisteredError where there is no such model."""
        with self._asking():
            # A killed process's last note counts if its alias did move: see the module's first lines.
            return tuple(note.promotion for note in self._notes(model) if note.done or self._happened(note.promotion))

    def trained_with(self, version: Version) -> Mapping[str, str]:
        """The settings of the version's run as MLflow has them: dotted path -> text."""
        with self._asking():
            try:
                return dict(retried(lambda: self._client.get_run(version.run_id)).data.params)
            except MlflowException as error:
                if is_transient(error):
                    raise
                return {}  # registered by something else, or its run was deleted

    def download(self, version: Version, to: Path) -> Path:
        """Copy a version's files into a folder below `to`, and return that folder."""
        start = f"runs:/{version.run_id}/"
        if not version.source.startswith(start):
            raise RegistryError(f"{version.model}/{version.version} is not an adapter of tunery: {version.source}")
        to.mkdir(parents=True, exist_ok=True)
        path = version.source.removeprefix(start)
        with self._asking():
            folder = Path(retried(lambda: self._client.download_artifacts(version.run_id, path, str(to))))
        if not folder.is_dir() or not any(folder.iterdir()):
            raise RegistryError(f"the files of {version.model}/{version.version} are gone from {version.source}")
        return folder

    def _move(self, move: Promotion) -> None:
        note = Note(self._next_number(move.model), False, move)
        self._write(note)
        retried(lambda: self._client.set_registered_model_alias(move.model, move.alias, move.to_version))
        self._write(replace(note, done=True))

    def _settled(self, model: str, alias: str) -> str | None:
        """The version that holds the alias, after what a killed process left is put in order."""
        for note in self._notes(model):
            if note.done:
                continue
            if self._happened(note.promotion):
                self._write(replace(note, done=True))
            else:
                retried(partial(self._client.delete_registered_model_tag, model, note.key))
        holder = self.champion(model, alias)
        return holder.version if holder else None

    def _happened(self, move: Promotion) -> bool:
        holder = self.champion(move.model, move.alias)
        return holder is not None and holder.version == move.to_version

    def _notes(self, model: str) -> list[Note]:
        try:
            tags = retried(lambda: self._client.get_registered_model(model)).tags
        except MlflowException as error:
            if is_transient(error):
                raise
            raise self._not_registered(model, "") from error
        return notes(model, tags)

    def _next_number(self, model: str) -> int:
        return max((note.number for note in self._notes(model)), default=0) + 1

    def _write(self, note: Note) -> None:
        model, key, value = note.promotion.model, note.key, note.to_text()
        retried(lambda: self._client.set_registered_model_tag(model, key, value))

    def _create_model(self, model: str) -> None:
        try:
            self._client.create_registered_model(model)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _not_registered(self, model: str, what: str) -> NotRegisteredError:
        known = self.models()
        if model in known:
            has = ", ".join(v.version + "".join(f"@{alias}" for alias in v.aliases) for v in self.versions(model))
            return NotRegisteredError(f"model {model!r} has no {what}; it has: {has or 'no versions'}")
        close = get_close_matches(model, known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ";"
        return NotRegisteredError(f"no model {model!r} is registered{hint} known: {', '.join(known) or 'none'}")

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """What MLflow and its database raise, as what our callers know."""
        try:
            yield
        except RegistryError:
            raise
        except Exception as error:
            place, text = without_password(self._uri), told(error, self._uri)
            if isinstance(error, MlflowException) and not is_transient(error):
                raise RegistryError(f"the registry at {place} refused: {text}") from error
            raise RegistryUnreachableError(f"the registry at {place} does not answer: {text}") from error


def _plain(name: str) -> str:
    if "'" in name:
        raise NotRegisteredError(f"no model {name!r} is registered: names of models hold no quotes")
    return name


def _check(model: str, alias: str, holder: str | None, expected: str | None) -> None:
    if expected not in (ANY, holder):
        raise ChampionMovedError(f"{model}@{alias} is version {holder or 'none'} by now, not {expected or 'none'}")
