"""The best configurations again with other seeds, on a real Optuna database."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from tests.unit.cluster.searching import Process, frozen, search_of
from tunery.cluster import reruns, spaces
from tunery.cluster.messages import DRAW, NUMBER, ORIGIN, RERUN_OF
from tunery.spec import RerunSpec

SPEC = RerunSpec(seeds=2, top=2)


def score(draw: Mapping[str, Any], epoch: int) -> float:
    """The largest rank is the best; of each rank, more epochs."""
    return float(draw["tuner.rank"] + 0.1 * draw["train.epochs"] + 0.01 * epoch)


def searched(tmp_path: Path) -> Process:
    search = search_of(sampler={"name": "grid"}, pruner={"name": "none"}, rerun_best=SPEC.model_dump())
    process = Process(tmp_path, search)
    process.run(6, score)
    return process


def with_reruns(process: Process) -> Process:
    reruns.queue(process.study, SPEC, seed=42)
    process.restart(reruns.with_seed(spaces.distributions(process.search)))
    return process


def test_the_best_configurations_get_the_same_new_seeds(tmp_path: Path) -> None:
    process = with_reruns(searched(tmp_path))
    best = {tuple(frozen(process.study, n).params.values()): n for n in range(6)}
    first, second = best[16, 2], best[16, 1]
    assert reruns.left(process.study) == 4
    configs = process.run(4, score, prefix="rerun ")
    assert [config[NUMBER] for config in configs] == [6, 7, 8, 9]
    assert [config[RERUN_OF] for config in configs] == [first, second, first, second]
    assert configs[0][ORIGIN] == f"trial {first}"
    seeds = [config[DRAW].pop("train.seed") for config in configs]
    assert seeds[0] == seeds[1] != seeds[2] == seeds[3]
    assert 42 not in seeds
    assert [tuple(config[DRAW].values()) for config in configs] == [(16, 2), (16, 1)] * 2
    assert reruns.left(process.study) == 0
    assert len(reruns.searched(process.study)) == 6


def test_a_kill_among_the_reruns_leads_to_the_same_ones(tmp_path: Path) -> None:
    process = with_reruns(searched(tmp_path))
    done = process.run(1, score, prefix="rerun ")
    running = process.ask("killed")
    after = with_reruns(Process(tmp_path, process.search))
    assert reruns.left(after.study) == 3
    again = after.ask("again")
    assert (again[NUMBER], again[DRAW]) == (running[NUMBER], running[DRAW])
    after.train("again", again, score)
    rest = after.run(2, score, prefix="rest ")
    whole = [(config[RERUN_OF], config[DRAW]["train.seed"]) for config in (*done, again, *rest)]
    assert len(set(whole)) == 4
    assert after.states == ["COMPLETE"] * 10
    assert with_reruns(Process(tmp_path, process.search)).states == ["COMPLETE"] * 10, "nothing more is queued"


def test_a_kill_while_they_are_queued_leads_to_the_same_ones(tmp_path: Path) -> None:
    whole = with_reruns(searched(tmp_path)).study
    expected = [trial.system_attrs["fixed_params"] for trial in whole.get_trials(states=(TrialState.WAITING,))]
    (tmp_path / "other").mkdir()
    killed = searched(tmp_path / "other").study
    origin = {ORIGIN: "trial", RERUN_OF: reruns.best(killed, 2)[0].number}
    killed.enqueue_trial(expected[0], user_attrs=origin)
    reruns.queue(killed, SPEC, seed=42)
    assert [t.system_attrs["fixed_params"] for t in killed.get_trials(states=(TrialState.WAITING,))] == expected


def test_only_what_ran_to_its_end_is_run_again_and_each_configuration_once(tmp_path: Path) -> None:
    process = Process(tmp_path, search_of(sampler={"name": "random", "seed": 1}, pruner={"name": "asha"}))
    draw = {"tuner.rank": 4, "train.epochs": 1}
    for value in (0.5, 0.6):
        process.study.enqueue_trial(draw)
        process.run(1, lambda *_, value=value: value, prefix=f"{value} ")
    process.study.enqueue_trial({"tuner.rank": 8, "train.epochs": 1})
    process.run(1, lambda *_: 0.1, prefix="weak ")
    failed = process.ask("failed")
    process.searcher.on_trial_complete("failed", error=True)
    assert process.states == ["COMPLETE", "COMPLETE", "PRUNED", "FAIL"], failed
    assert [trial.number for trial in reruns.best(process.study, 3)] == [1]


def test_seeds_are_others_and_always_the_same() -> None:
    assert reruns.seeds(42, 3) == reruns.seeds(42, 3)
    assert reruns.seeds(42, 2) == reruns.seeds(42, 3)[:2]
    assert len({*reruns.seeds(42, 50), 42}) == 51
    assert reruns.seeds(42, 3) != reruns.seeds(43, 3)
