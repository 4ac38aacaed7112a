"""Samplers and pruners on a real Optuna database, with the study's process dying in between."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cluster.searching import Process, frozen, search_of
from tunery.cluster import draws, spaces
from tunery.cluster.draws import First
from tunery.cluster.messages import DRAW, NUMBER, ORIGIN
from tunery.spec import SearchSpec

SAMPLERS = ("tpe", "gp", "random", "grid")
PRUNERS = ("asha", "median", "none")


def score(draw: Mapping[str, Any], epoch: int) -> float:
    return float(draw["tuner.rank"]) / 16 + 0.01 * epoch


def cells(configs: list[dict[str, Any]]) -> list[tuple[object, ...]]:
    return [tuple(config[DRAW].values()) for config in configs]


@pytest.mark.parametrize("pruner", PRUNERS)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_study_goes_on_after_a_kill_with_every_sampler_and_pruner(tmp_path: Path, sampler: str, pruner: str) -> None:
    search = search_of(sampler={"name": sampler, "seed": 5}, pruner={"name": pruner})
    before = Process(tmp_path, search)
    done = before.run(3, score)
    running = before.ask("killed")
    before.train("killed", running, lambda *_: 1.0, upto=1)  # so well that no pruner stops it

    after = Process(tmp_path, search)
    assert len(draws.ended(after.study)) == 3
    again = after.ask("first after")
    assert (again[NUMBER], again[DRAW]) == (running[NUMBER], running[DRAW]), "its draw and number are given back"
    after.train("first after", again, score)
    rest = after.run(2, score, prefix="after ")
    assert [config[NUMBER] for config in (*done, again, *rest)] == list(range(6))
    assert set(after.states) <= {"COMPLETE", "PRUNED"}
    assert all(search.space[path].contains(v) for config in (*done, *rest) for path, v in config[DRAW].items())


def test_a_grid_is_gone_through_once_whatever_happens(tmp_path: Path) -> None:
    search = search_of(sampler={"name": "grid", "seed": 3}, pruner={"name": "none"})
    one = Process(tmp_path, search)
    own = {"tuner.rank": 8, "train.epochs": 1}
    draws.queue(one.study, search, [First(own, "spec"), First({"tuner.rank": 4}, "a part is no cell of a grid")])
    configs = one.run(2, score)
    assert (configs[0][DRAW], configs[0][ORIGIN]) == (own, "spec")
    killed = one.ask("killed")
    two = Process(tmp_path, search)
    assert two.ask("again")[DRAW] == killed[DRAW]
    failed = two.ask("failed")
    two.searcher.on_trial_complete("failed", error=True)
    rest = two.run(2, score, prefix="rest ")
    found = cells([*configs, killed, failed, *rest])
    assert sorted(found, key=repr) == sorted([(rank, e) for rank in (4, 8, 16) for e in (1, 2)], key=repr)


@pytest.mark.parametrize("sampler", ["tpe", "gp", "random"])
def test_no_configuration_of_listed_values_is_trained_twice(tmp_path: Path, sampler: str) -> None:
    space = {
        "tuner.rank": {"choice": [4, 8, 16]},
        "train.schedule": {"choice": ["linear", "cosine", "constant"]},
        "train.epochs": {"choice": [1]},
    }
    search = search_of(trials=9, space=space, sampler={"name": sampler, "seed": 2}, pruner={"name": "none"})
    process = Process(tmp_path, search, epochs=1)
    own: dict[str, str | int | float | bool | None] = {"tuner.rank": 8, "train.schedule": "linear", "train.epochs": 1}
    firsts = [First(own, "spec"), First({"tuner.rank": 8}, "registry m/1")]
    draws.queue(process.study, search, firsts)
    configs = process.run(4, score)
    running = process.ask("running")
    after = Process(tmp_path, search, epochs=1)
    assert after.ask("again")[DRAW] == running[DRAW]
    configs += [running, *after.run(4, score, prefix="after ")]
    assert len(set(cells(configs))) == 9
    assert [config[ORIGIN] for config in configs[:3]] == ["spec", "registry m/1", ""]
    assert after.ask("over")[DRAW] in [config[DRAW] for config in configs], "nothing else is left"


def test_the_order_of_a_grid_is_its_seeds(tmp_path: Path) -> None:
    orders = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        (tmp_path / name).mkdir()
        process = Process(tmp_path / name, search_of(sampler={"name": "grid", "seed": seed}))
        orders.append(cells(process.run(6, score)))
    assert orders[0] == orders[1] != orders[2]


@pytest.mark.parametrize("sampler", ["tpe", "gp", "random"])
def test_a_study_that_goes_on_does_not_repeat_its_first_draws(tmp_path: Path, sampler: str) -> None:
    space = {"train.learning_rate": {"log_uniform": [1e-5, 1e-2]}}
    search = search_of(space=space, sampler={"name": sampler, "seed": 1})
    drawn = [config[DRAW]["train.learning_rate"] for config in Process(tmp_path, search).run(3, lambda *_: 0.5)]
    drawn += [config[DRAW]["train.learning_rate"] for config in Process(tmp_path, search).run(3, lambda *_: 0.5)]
    assert len(set(drawn)) == 6


def test_tpe_draws_every_third_trial_at_random(tmp_path: Path) -> None:
    space = {"train.learning_rate": {"uniform": [0.0, 1.0]}}
    search = search_of(trials=60, space=space, sampler={"name": "tpe", "seed": 0}, pruner={"name": "none"})
    process = Process(tmp_path, search, epochs=1)
    configs = process.run(60, lambda draw, _: -((draw["train.learning_rate"] - 0.3) ** 2))
    late = [(config[NUMBER] % 3, abs(config[DRAW]["train.learning_rate"] - 0.3)) for config in configs[30:]]
    at_random, modelled = ([far for turn, far in late if (turn == 2) is wanted] for wanted in (True, False))
    assert statistics.median(modelled) < 0.1
    assert statistics.median(at_random) > 0.15, "uniform over the whole: 0.25 on average"


def test_gp_fits_a_model_of_what_is_done_and_loads_torch_for_no_one_else(tmp_path: Path) -> None:
    space = {"train.learning_rate": {"uniform": [0.0, 1.0]}}
    search = search_of(trials=14, space=space, sampler={"name": "gp", "seed": 0}, pruner={"name": "none"})
    process = Process(tmp_path, search, epochs=1)
    configs = process.run(14, lambda draw, _: -((draw["train.learning_rate"] - 0.3) ** 2))
    late = [config[DRAW]["train.learning_rate"] for config in configs[8:]]
    assert min(abs(value - 0.3) for value in late) < 0.02
    code = (
        "import sys; from tunery.cluster import draws; from tunery.spec import SearchSpec, SamplerSpec;"
        "s = SearchSpec(sampler=SamplerSpec(name=sys.argv[1]));"
        "draws.open_study(s, study_name='x', url='sqlite:///:memory:', mode='max').ask();"
        "assert 'torch' not in sys.modules"
    )
    for sampler in ("tpe", "gp"):
        subprocess.run([sys.executable, "-c", code, sampler], check=True)


@pytest.mark.parametrize("pruner", ["asha", "median"])
def test_what_was_stopped_is_pruned_with_its_values_and_known_after_a_restart(tmp_path: Path, pruner: str) -> None:
    """Four good trials; a bad one is stopped at its first epoch, before and after the process was killed."""
    search = search_of(trials=8, sampler={"name": "random"}, pruner={"name": pruner, "grace_epochs": 1})
    before = Process(tmp_path, search)
    before.run(4, lambda _, epoch: 0.8 + 0.01 * epoch)
    bad = before.ask("bad")
    assert before.train("bad", bad, lambda *_: 0.1) == 1
    assert before.ends[-1] == (4, "pruned")
    told = frozen(before.study, 4)
    assert (told.state.name, told.intermediate_values) == ("PRUNED", {0: 0.1})

    after = Process(tmp_path, search)
    worse = after.ask("worse")
    assert after.train("worse", worse, lambda *_: 0.2) == 1, "what ended before the restart is known"
    good = after.ask("good")
    assert after.train("good", good, lambda _, epoch: 0.9 + 0.01 * epoch) == 3
    assert after.states == ["COMPLETE"] * 4 + ["PRUNED", "PRUNED", "COMPLETE"]


def test_median_lets_three_others_come_first_and_keeps_the_grace(tmp_path: Path) -> None:
    search = search_of(pruner={"name": "median", "grace_epochs": 2}, sampler={"name": "random"})
    process = Process(tmp_path, search, epochs=4)
    process.run(3, lambda _, epoch: 0.5 - 0.1 * len(process.ends) + 0.01 * epoch)
    assert process.states == ["COMPLETE"] * 3, "worse and worse, and nothing to compare with yet"
    last = process.ask("last")
    assert process.train("last", last, lambda *_: 0.0) == 2


def test_a_kill_between_two_values_of_a_draw_costs_nothing(tmp_path: Path) -> None:
    search = search_of(sampler={"name": "random"})
    before = Process(tmp_path, search)
    partial = before.study.ask()
    partial._suggest("tuner.rank", spaces.distributions(search)["tuner.rank"])
    after = Process(tmp_path, search)
    config = after.ask("again")
    assert (config[NUMBER], config[DRAW]["tuner.rank"]) == (0, partial.params["tuner.rank"])
    assert set(config[DRAW]) == set(search.space)


def test_what_a_study_begins_with_is_queued_once(tmp_path: Path) -> None:
    search = search_of(sampler={"name": "random"})
    own, other = {"tuner.rank": 8, "train.epochs": 1}, {"tuner.rank": 16}
    firsts = [First(own, "spec"), First(dict(own), "registry m/1"), First(other, "registry m/2"), First({}, "nothing")]
    for _ in range(2):  # a kill may have come in the middle of it
        process = Process(tmp_path, search)
        assert draws.untouched(process.study)
        draws.queue(process.study, search, firsts)
    configs = process.run(3, score)
    assert not draws.untouched(process.study)
    assert [config[ORIGIN] for config in configs] == ["spec", "registry m/2", ""]
    assert configs[0][DRAW] == own
    assert configs[1][DRAW]["tuner.rank"] == 16


def test_the_space_of_a_study_without_one_is_empty(tmp_path: Path) -> None:
    for sampler in SAMPLERS:
        (tmp_path / sampler).mkdir()
        search = SearchSpec.model_validate({"trials": 1, "sampler": {"name": sampler}})
        (only,) = Process(tmp_path / sampler, search).run(1, lambda *_: 0.5)
        assert only[DRAW] == {}
