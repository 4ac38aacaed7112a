"""The gate: a table of decisions, and races for one alias on a real registry."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import pytest

from storage.mlflow_connection import connect
from storage.registry import Registry, Version
from tunery.inference.card import Score
from tunery.inference.gate import Direction, contest, decide

NAN = math.nan


def score(value: float, objective: str = "mcc", data: str = "a") -> Score:
    return Score(objective, value, data)


@pytest.mark.parametrize(
    ("candidate", "champion", "direction", "min_gain", "promote", "why"),
    [
        (score(0.5), None, "maximise", 0.0, True, "there was no champion"),
        (score(0.5), None, "maximise", 9.0, True, "there was no champion"),
        (score(0.6), score(0.5), "maximise", 0.0, True, "gain +0.1000"),
        (score(0.5), score(0.5), "maximise", 0.0, False, "no gain"),
        (score(0.4), score(0.5), "maximise", 0.0, False, "gain -0.1000"),
        (score(0.4), score(0.5), "minimise", 0.0, True, "gain +0.1000"),
        (score(0.6), score(0.5), "minimise", 0.0, False, "gain -0.1000"),
        (score(0.3), score(0.2), "maximise", 0.1, True, "at least 0.1"),
        (score(0.29), score(0.2), "maximise", 0.1, False, "less than 0.1"),
        (score(0.6), score(0.5, "f1"), "maximise", 0.0, False, "the champion's f1"),
        (score(0.6), score(0.5, data="b"), "maximise", 0.0, False, "other data"),
        (score(NAN), None, "maximise", 0.0, False, "not a number"),
        (score(NAN), score(0.5), "minimise", 0.0, False, "not a number"),
        (score(NAN), score(NAN), "maximise", 0.0, False, "not a number"),
        (score(0.1), score(NAN), "maximise", 0.5, True, "the champion's is not a number"),
    ],
)
def test_decisions(
    candidate: Score, champion: Score | None, direction: Direction, min_gain: float, promote: bool, why: str
) -> None:
    verdict = decide(candidate, champion, direction=direction, min_gain=min_gain)
    assert verdict.promote is promote
    assert why in verdict.why


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    uri = f"sqlite:///{tmp_path_factory.mktemp('gate')}/mlflow.db"
    connect(uri)
    return uri


def versions(uri: str, model: str, scores: list[Score]) -> list[Version]:
    client, registry = connect(uri), Registry(uri)
    runs = [client.create_run("0").info.run_id for _ in scores]
    return [
        registry.register(model, run_id=run, artifact_path="adapter", tags=score.tags())
        for run, score in zip(runs, scores, strict=True)
    ]


def hold(uri: str, candidate: Version, own: Score, measured: float = NAN) -> tuple[str, str | None]:
    def measure(champion: Version) -> Score:
        assert not math.isnan(measured), f"nobody asked to measure {champion.version}"
        return Score(own.objective, measured, own.data_fingerprint)

    move = contest(
        Registry(uri), candidate, own, alias="champion", direction="maximise", min_gain=0.0, by="me", measure=measure
    )
    return move.verdict, move.from_version


def test_eight_contests_at_once_leave_the_best_and_one_chain(uri: str) -> None:
    scores = [score(value / 10) for value in (3, 8, 1, 6, 2, 7, 5, 4)]
    made = versions(uri, "race", scores)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(hold, [uri] * 8, made, scores))
    registry = Registry(uri)
    champion = registry.champion("race")
    assert champion is not None
    assert champion.version == "2"
    history = registry.history("race")
    assert len(history) == 8
    promoted = [move for move in history if move.verdict == "promoted"]
    assert [move.from_version for move in promoted] == [None, *(move.to_version for move in promoted[:-1])]
    values = [move.to_value for move in promoted]
    assert values == sorted(values, key=lambda value: value or 0.0)
    for refused in (move for move in history if move.verdict == "refused"):
        assert refused.from_value is not None
        assert refused.to_value is not None
        assert refused.to_value <= refused.from_value


def test_a_champion_of_other_data_is_measured_first(uri: str) -> None:
    old, new = score(0.9, data="old"), score(0.5, data="new")
    first, second, third = versions(uri, "other-data", [old, new, new])
    assert hold(uri, first, old) == ("promoted", None)
    assert hold(uri, second, new, measured=0.4) == ("promoted", "1")
    assert hold(uri, third, new) == ("refused", "2")
    assert [move.from_value for move in Registry(uri).history("other-data")] == [None, 0.4, 0.5]


def test_a_contest_held_again_after_a_kill_changes_nothing(uri: str) -> None:
    own = score(0.5)
    (only,) = versions(uri, "again", [own])
    assert hold(uri, only, own) == ("promoted", None)
    assert hold(uri, only, own)[0] == "promoted"
    assert len(Registry(uri).history("again")) == 1
