"""Whether a candidate becomes the champion: a pure decision, and the race-free way to carry it out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from storage.errors import ChampionMovedError
from storage.registry import Promotion, Registry, Version
from tunery.inference.card import Score

Direction = Literal["maximise", "minimise"]


@dataclass(frozen=True)
class Verdict:
    """What the gate says."""

    promote: bool
    why: str


def decide(candidate: Score, champion: Score | None, *, direction: Direction, min_gain: float = 0.0) -> Verdict:
    """Whether the candidate takes the alias: it must be better by at least `min_gain`, and better at all.

    `min_gain` is in the objective's own unit. Unlike scores are not compared: measure the champion on the
    candidate's data first.
    """
    name = candidate.objective
    if math.isnan(candidate.value):
        return Verdict(False, f"the candidate's {name} is not a number")
    if champion is None:
        return Verdict(True, f"{name} {candidate.value:.4f}; there was no champion")
    if candidate.objective != champion.objective:
        return Verdict(False, f"not comparable: {name} against the champion's {champion.objective}")
    if candidate.data_fingerprint != champion.data_fingerprint:
        return Verdict(False, "not comparable: the champion was measured on other data")
    if math.isnan(champion.value):
        return Verdict(True, f"{name} {candidate.value:.4f}; the champion's is not a number")
    gain = candidate.value - champion.value if direction == "maximise" else champion.value - candidate.value
    told = f"{name} {candidate.value:.4f} against {champion.value:.4f}: gain {gain:+.4f}"
    enough = gain >= min_gain or math.isclose(gain, min_gain)  # 0.3 - 0.2 is a gain of 0.1
    if gain > 0 and enough:
        return Verdict(True, told if not min_gain else f"{told}, at least {min_gain:g}")
    return Verdict(False, f"{told}, " + (f"less than {min_gain:g}" if not enough else "no gain"))


def contest(
    registry: Registry,
    candidate: Version,
    score: Score,
    *,
    alias: str,
    direction: Direction,
    min_gain: float,
    by: str,
    measure: Callable[[Version], Score],
) -> Promotion:
    """Put a registered candidate before the gate, move the alias if it passes, and note the decision either way.

    `measure` scores a champion on the candidate's data; it is asked only where the champion's own score is unlike.
    The alias moves only from the champion that was compared: if another contest was quicker, this one is held anew
    against its winner, so a worse adapter never wins a race. An adapter that holds the alias already keeps it.
    """
    while True:
        champion = registry.champion(candidate.model, alias)
        held = None if champion is None else _score_of(champion, score, measure)
        verdict = decide(score, held, direction=direction, min_gain=min_gain)
        if champion is not None and champion.version == candidate.version:  # decided before, by a killed driver
            verdict = Verdict(True, "it holds the alias already")
        move = registry.promote if verdict.promote else registry.refuse
        try:
            return move(
                candidate.model,
                candidate.version,
                alias,
                by=by,
                why=verdict.why,
                expected=champion.version if champion else None,
                objective=score.objective,
                from_value=held.value if held else None,
                to_value=score.value,
            )
        except ChampionMovedError:
            continue


def _score_of(champion: Version, candidate: Score, measure: Callable[[Version], Score]) -> Score:
    recorded = Score.from_tags(champion.tags)
    return recorded if recorded is not None and recorded.comparable(candidate) else measure(champion)
