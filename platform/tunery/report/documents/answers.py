"""What the matrix asks, answered from the numbers: which is better, by how much, is it more than chance, what it cost.

Two scores are compared as means over other seeds where both have them. A difference counts as beyond the deviation
over seeds where it is larger than the deviation that a difference of two single runs has: the root of the sum of both
variances. With the few seeds that a sweep affords, an error of the mean would promise more than they can tell.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from tunery.report import words
from tunery.report.documents.facts import Facts, Result, is_number
from tunery.runs import Value

SEEDS = "search.rerun_best trains the best configurations again with other seeds"

NOTES = (
    "A score is that of the best evaluation of a study's best trial, and in part luck; a mean over other seeds is not "
    "of the run that was chosen for its score.",
    "Time is what trials were under way, beside others in their packs, from their first place in a pack to their end; "
    "that of a study is the sum over its trials. Peak memory is that of a pack's worker with all its seats.",
)


@dataclass(frozen=True)
class Answer:
    """One question about one task."""

    task: str
    question: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Difference:
    """Of two studies that differ in one value of the matrix."""

    better: Result
    worse: Result
    by: float
    """At least 0."""
    spread: float | None
    """The deviation over seeds of such a difference; None where one of the two was trained with one seed."""
    over_seeds: bool = field(default=False)
    """Whether means over other seeds are compared, and not single runs."""

    @property
    def beyond(self) -> bool | None:
        """Whether it is more than the deviation over seeds; None where one seed cannot tell."""
        return None if self.spread is None else self.by > self.spread

    def score(self, result: Result) -> float:
        """The number that was compared."""
        return _score(result, over_seeds=self.over_seeds)


def answers(facts: Facts) -> tuple[Answer, ...]:
    """A question a task and axis of the matrix, and the best of each task."""
    return tuple(answer for task, results in facts.tasks.items() for answer in _of_task(facts, task, results))


def compare(one: Result, other: Result) -> Difference:
    """Two studies of one task that have results."""
    over_seeds = one.tested is not None and other.tested is not None
    sign = 1.0 if one.study.direction == "maximise" else -1.0
    gain = sign * (_score(one, over_seeds=over_seeds) - _score(other, over_seeds=over_seeds))
    better, worse = (one, other) if gain >= 0 else (other, one)
    deviations = [each.tested.deviation or 0.0 for each in (one, other) if each.tested]
    return Difference(better, worse, abs(gain), math.hypot(*deviations) if over_seeds else None, over_seeds)


def _score(result: Result, *, over_seeds: bool) -> float:
    found = result.standing.mean if over_seeds and result.standing else result.score
    assert found is not None
    return found


def _of_task(facts: Facts, task: str, results: Sequence[Result]) -> Iterator[Answer]:
    scored = [result for result in results if result.score is not None]
    for path in facts.axes:
        if lines := tuple(_axis(facts, path, scored)):
            yield Answer(task, f"{task}: what does {path} change?", lines)
    best = _best(facts, scored) if scored else ()
    yield Answer(task, f"{task}: what is best?", (*best, *_without(results)))


# -- one axis --------------------------------------------------------------------------------------------------


def _axis(facts: Facts, path: str, scored: Sequence[Result]) -> Iterator[str]:
    found: list[Difference] = []
    for where, group in _groups(facts, path, scored).items():
        ordered = {facts.said(path, value): group[value] for value in facts.axes[path] if value in group}
        if len(ordered) < 2:
            continue
        told = _steps if all(map(is_number, facts.axes[path])) else _ranks
        for sentence, difference in told(facts.names[path], ordered):
            found.append(difference)
            yield f"With {where}: {sentence}" if where else sentence
        yield f"Cost{f' with {where}' if where else ''}: {_costs(ordered)}"
    if len(found) > 1:
        yield _in_all(facts, path, found)


def _groups(facts: Facts, path: str, scored: Sequence[Result]) -> dict[str, dict[Value, Result]]:
    """The rest of the cell, in words -> the axis's value -> the study."""
    groups: dict[str, dict[Value, Result]] = {}
    for result in scored:
        groups.setdefault(facts.label(result, without=[path]), {})[result.study.cell[path]] = result
    return groups


def _ranks(_: str, group: Mapping[str, Result]) -> Iterator[tuple[str, Difference]]:
    """Each other value against the best."""
    best = next(iter(group))
    for value in group:
        if compare(group[best], group[value]).better is group[value]:
            best = value
    for value, result in group.items():
        if value != best:
            difference = compare(group[best], result)
            yield f"{_against(best, value, group[best], difference)}. {_chance(difference)}", difference


def _against(one: str, other: str, first: Result, difference: Difference) -> str:
    second = difference.worse if first is difference.better else difference.better
    scores = _scores(difference, first, second, "and")
    if not difference.by:
        return f"{one} and {other} are equal in {scores}"
    if first is difference.worse:  # the means over seeds say otherwise than single runs
        one, other = other, one
        scores = _scores(difference, second, first, "and")
    return f"{one} is better than {other} by {words.number(difference.by)}: {scores}"


def _steps(name: str, group: Mapping[str, Result]) -> Iterator[tuple[str, Difference]]:
    """From each value to the next."""
    for (low, before), (high, after) in pairwise(group.items()):
        difference = compare(after, before)
        way = "no change" if not difference.by else "better" if difference.better is after else "worse"
        by = f" by {words.number(difference.by)}" if difference.by else ""
        scores = _scores(difference, before, after, "to")
        yield f"{name} from {low} to {high}: {way}{by}, {scores}. {_chance(difference)}", difference


def _scores(difference: Difference, one: Result, other: Result, word: str) -> str:
    numbers = [words.number(difference.score(result)) for result in (one, other)]
    seeds = [len(result.tested.runs) for result in (one, other) if result.tested]
    over = f"{seeds[0]} other seeds each" if len({*seeds}) == 1 else " and ".join(map(str, seeds)) + " other seeds"
    means = f", means over {over}" if difference.over_seeds else ""
    return f"{one.study.objective} {numbers[0]} {word} {numbers[1]}{means}"


def _chance(difference: Difference) -> str:
    match difference.beyond:
        case None:
            lacking = [r.study.name for r in (difference.better, difference.worse) if r.tested is None]
            which = f"{lacking[0]} has" if len(lacking) == 1 else "they have"
            return f"Whether that is more than chance cannot be told: {which} no deviation over seeds ({SEEDS})."
        case True:
            return f"That is beyond the deviation over seeds, {words.number(difference.spread)}."
        case False:
            return f"That is within the deviation over seeds, {words.number(difference.spread)}: it may be chance."


def _costs(group: Mapping[str, Result]) -> str:
    return "; ".join(f"{value} {_cost(result)}" for value, result in group.items()) + f".{_ratio(group)}"


def _cost(result: Result) -> str:
    trials = words.count(len(result.study.trials), "trial")
    memory = f", {result.peak_gb:.2f} GB at the peak" if result.peak_gb is not None else ""
    alone = f" ({_time(result.best_seconds)} its best)" if len(result.study.trials) > 1 else ""
    return f"took {_time(result.seconds)} for {trials}{alone}{memory}"


def _ratio(group: Mapping[str, Result]) -> str:
    """Of the dearest to the cheapest, by their best trials: studies may have pruned more or fewer."""
    ordered = sorted(group.items(), key=lambda pair: pair[1].best_seconds)
    (cheap, least), (dear, most) = ordered[0], ordered[-1]
    if not least.best_seconds or most.best_seconds == least.best_seconds:
        return ""
    times = most.best_seconds / least.best_seconds
    return f" The best trial with {dear} took {times:.2f} times as long as that with {cheap}."


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 100 else words.duration(seconds)


def _in_all(facts: Facts, path: str, found: Sequence[Difference]) -> str:
    """How often each value won, and by how much on average."""
    wins: dict[str, list[float]] = {}
    for difference in found:
        value, other = (each.study.cell[path] for each in (difference.better, difference.worse))
        if difference.by:
            larger = is_number(value) and is_number(other) and value > other
            name = ("the larger" if larger else "the smaller") if is_number(value) else facts.said(path, value)
            wins.setdefault(name, []).append(difference.by)
    beyond = [difference.beyond for difference in found]
    told = ", ".join(
        f"{value} is better in {len(gains)}, by {words.number(statistics.fmean(gains))} on average"
        for value, gains in wins.items()
    )
    unknown = sum(each is None for each in beyond)
    rest = f"; {unknown} without a deviation over seeds" if unknown else ""
    within = f"{beyond.count(True)} of them beyond the deviation over seeds{rest}"
    return f"In all, of {len(found)} comparisons: {told or 'all are equal'}; {within}."


def _without(results: Sequence[Result]) -> Iterator[str]:
    for result in results:
        if result.score is None:
            why = words.first_line(result.study.error)
            yield f"No result of {result.study.name}: {result.study.status}{f', {why}' if why else ''}."


# -- the best --------------------------------------------------------------------------------------------------


def _best(facts: Facts, scored: Sequence[Result]) -> Iterator[str]:
    best = scored[0]
    for result in scored[1:]:
        if compare(best, result).better is not best:
            best = result
    assert best.best is not None
    cell, draw = facts.label(best), words.draw(best.best.config)
    trial = f"trial {best.best.number}{f' ({draw})' if draw else ''}"
    mean = ""
    if best.standing and best.standing.mean is not None:
        spread = best.standing.deviation
        mean = f"; mean {words.number(best.standing.mean)} over {words.count(len(best.standing.runs), 'other seed')}"
        mean += f", deviation {words.number(spread)}" if spread is not None else ""
    metric = f"{best.study.objective} {words.number(best.score)}"
    yield f"{cell or 'The best'}: {metric} by {trial}{mean}. It {_cost(best)}."
    own = next((t for t in best.study.trials if t.origin == "spec" and t.rerun_of is None), None)
    if own is not None and own.objective is not None and best.score is not None and own.number != best.best.number:
        gain, gave = best.score - own.objective, f"{words.number(own.objective)} (trial {own.number})"
        if gain >= 0:
            yield f"The search gained {words.number(gain)} over the spec's own values, which gave {gave}."
        else:  # the best is the best by its mean
            more = words.number(-gain)
            yield f"The spec's own values gave {gave} in their one run, {more} more than the best by mean."
    if best.study.model and best.study.model_version:
        stands = {True: "is the champion", False: "is not the champion", None: "is registered"}[best.study.champion]
        verdict = f": {best.study.verdict}" if best.study.verdict else ""
        yield f"{best.study.model} version {best.study.model_version} {stands}{verdict}."
