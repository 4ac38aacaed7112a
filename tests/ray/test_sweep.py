"""The main job, with things dying in the middle of it."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import optuna
import pytest
from mlflow.entities import Metric
from optuna.trial import TrialState

from storage.checkpoints import CheckpointStore
from storage.registry import Registry
from tests.ray.conftest import Begin, Sweep, eventually
from tunery import tasks
from tunery.cluster.data import place_of
from tunery.inference.evaluate import evaluate
from tunery.inference.model import open_source
from tunery.inference.predictor import Predictor
from tunery.inference.source import locate
from tunery.rows import evaluation_sets

pytestmark = pytest.mark.ray


def ledger(sweep: Sweep, study: str = "cola") -> list[tuple[int, TrialState]]:
    loaded = optuna.load_study(study_name=f"{sweep.folder.run_id}/{study}", storage=sweep.home.study_storage_url)
    return [(trial.number, trial.state) for trial in loaded.get_trials()]


def statuses(sweep: Sweep) -> dict[str, str]:
    return {name.removeprefix(f"{sweep.folder.run_id}/"): run.info.status for name, run in sweep.runs().items()}


def test_a_sweep_ends_with_a_champion_and_a_worse_one_does_not_replace_it(begin: Begin, tmp_path: Path) -> None:
    sweep = begin()
    assert sweep.run() == 0, sweep.folder.driver_log.read_text()
    study = sweep.study()
    assert [(t.number, t.status, t.step) for t in study.trials] == [(n, "finished", 24) for n in range(3)]
    assert study.trials[0].config == {"train.learning_rate": 2e-3, "tuner.rank": 4}, "the spec's own values come first"
    best = max(study.trials, key=lambda t: (t.objective or 0.0, -t.number))
    assert study.best == best.number
    assert best.objective is not None
    assert best.objective > 0.5, "tools and fruits can be told apart"
    assert ledger(sweep) == [(n, TrialState.COMPLETE) for n in range(3)]
    assert statuses(sweep) == {"cola": "FINISHED"} | {f"cola/{n}": "FINISHED" for n in range(3)}
    run = sweep.runs()[f"{sweep.folder.run_id}/cola/{best.number}"]
    assert run.data.params["train.learning_rate"] == str(best.config["train.learning_rate"])
    assert run.data.metrics["best_objective"] == best.objective
    registry = Registry(sweep.home.tracking_uri)
    champion = registry.champion("fruits-cola")
    assert champion is not None
    assert (champion.version, study.model_version, study.champion) == ("1", "1", True)

    # A trial is a model too, whether it was registered or not.
    loser = next(trial for trial in study.trials if trial.number != study.best)
    source = locate(f"{sweep.folder.run_id}/{loser.number}", home=sweep.home)
    its_rows = evaluation_sets(tasks.get("cola"), place_of(sweep.plan.studies[0]))
    measured = evaluate(open_source(source), tasks.get("cola"), its_rows)
    assert measured.objective == pytest.approx(loser.objective)
    assert source.card.score.comparable(measured.score)

    # Other rows than the champion was measured on: the gate measures it anew.
    few = {"max_eval": 20, "seed": 5}
    worse = begin("worse", search__trials=1, search__space={}, train__learning_rate=1e-7, train__epochs=1, data=few)
    assert worse.run() == 0
    assert worse.study().champion is False
    assert "gain" in worse.study().verdict
    assert registry.champion("fruits-cola") == champion
    promoted, refused = registry.history("fruits-cola")
    assert (promoted.verdict, refused.verdict) == ("promoted", "refused")
    study_of_few = worse.plan.studies[0]
    task = tasks.get("cola")
    rows = evaluation_sets(task, place_of(study_of_few), limit=study_of_few.data.max_eval)
    assert {name: len(split.rows) for name, split in rows.items()} == {"validation": 20}
    predictor = Predictor.load(str(registry.download(champion, tmp_path / "champion")))
    assert refused.from_value == pytest.approx(evaluate(predictor, task, rows).objective)


def test_studies_share_as_many_packs_as_there_are_cores(begin: Begin) -> None:
    cores = os.cpu_count() or 1
    sweep = begin(tasks=["cola", "sst2"], search__trials=cores, resources={"packs": cores, "seats": 1}, train__epochs=1)
    assert sweep.run() == 0, sweep.folder.driver_log.read_text()
    trials = [trial for study in sweep.state.studies for trial in study.trials]
    assert [trial.status for trial in trials] == ["finished"] * 2 * cores
    logs = "".join(log.read_text() for log in sweep.folder.root.glob("logs/*/*.log"))
    assert set(re.findall(r"seated in (pack-\d+)", logs)) == {f"pack-{number}" for number in range(cores)}
    times = [(trial.started_at or 0.0, trial.ended_at or 0.0) for trial in trials]
    at_once = [sum(start <= moment < end for start, end in times) for moment, _ in times]
    assert max(at_once) <= 2 * cores, "beside those in the packs, one waits for each of them"


def test_trials_of_two_tasks_train_at_once_in_one_process(begin: Begin) -> None:
    # More epochs than it takes the second to come, however long that is; both are stopped then.
    sweep = begin(tasks=["cola", "sst2"], search__trials=1, search__space={}, train__epochs=1000)
    sweep.start()

    def both() -> bool:
        """In one look at the state: both train, and the second one has done so for an epoch."""
        if not sweep.folder.state_file.exists():
            return False
        trials = [trial for study in sweep.state.studies for trial in study.trials]
        return [trial.status == "running" and trial.epoch >= 2 for trial in trials] == [True, True]

    eventually(both, "a trial of each task, both under way")
    sweep.folder.stop_file.touch()
    assert sweep.wait() == 130
    logs = [sweep.folder.trial_log(task, 0).read_text() for task in ("cola", "sst2")]
    places = [re.findall(r"seated in (pack-\d+ \(process \d+\))", log) for log in logs]
    assert len(places[0]) == 1
    assert places[0] == places[1]
    times = [[line.partition(" ")[0] for line in log.splitlines() if ", epoch " in line] for log in logs]
    assert max(each[0] for each in times) < min(each[-1] for each in times), "they were evaluated in turn"


def test_between_evaluations_a_killed_pack_goes_on_from_the_newest_checkpoint_as_if_nothing_had_been(
    begin: Begin,
) -> None:
    long = {"epochs": 2, "batch_size": 2, "checkpoint": {"every_steps": 5, "keep": 3}}
    alone = {"train": long, "search__trials": 1, "search__space": {}, "resources__seats": 1}
    undisturbed = begin("undisturbed", **alone)
    assert undisturbed.run() == 0, undisturbed.folder.driver_log.read_text()
    sweep = begin(**alone)
    sweep.start()
    store = CheckpointStore(sweep.folder.checkpoints("cola", 0))

    def stopped_between_evaluations() -> int | None:
        """The step of the newest checkpoint, once it is none of an evaluation and the pack has been held there."""
        if (found := store.newest()) is None or found.step % 48 == 0:
            return None
        (held,) = sweep.pack_processes()
        os.kill(held, signal.SIGSTOP)
        found = store.newest()
        if found is not None and found.step % 48:
            os.kill(held, signal.SIGKILL)
            return found.step
        os.kill(held, signal.SIGCONT)
        return None

    step = eventually(stopped_between_evaluations, "a checkpoint between two evaluations")
    assert sweep.wait() == 0, sweep.folder.driver_log.read_text()
    log = sweep.folder.trial_log("cola", 0).read_text()
    assert re.findall(r"at step (\d+) of 96:", log) == ["0", str(step)], "not from the evaluation before it"
    kept = sorted(store.steps())
    assert kept[-3:] == [90, 95, 96]
    assert len(kept) <= 4, "three, and the best"
    for metric in ("train_loss", "loss", "mcc"):
        curves = [[(m.step, m.value) for m in _history(each, "cola/0", metric)] for each in (undisturbed, sweep)]
        assert [step for step, _ in curves[0]] == [48, 96]
        assert curves[0] == curves[1], f"{metric}: every digit"


@pytest.mark.parametrize("rank", [0, 1], ids=["the one that speaks", "the other"])
def test_a_pack_of_two_workers_goes_on_when_one_is_killed(rank: int, begin: Begin) -> None:
    sweep = begin(train__epochs=3, search__trials=2, resources={"workers": 2, "seats": 2})
    sweep.start()
    eventually(sweep.begun, "a trial with a checkpoint")
    first = sweep.pack_processes()
    assert len(set(first)) == 2
    os.kill(first[rank], signal.SIGKILL)
    assert sweep.wait() == 0, sweep.folder.driver_log.read_text()
    assert not set(sweep.pack_processes()) & set(first), "the whole group is started again"
    assert [(t.number, t.status, t.step) for t in sweep.study().trials] == [(n, "finished", 36) for n in range(2)]
    for number in range(2):
        log = sweep.folder.trial_log("cola", number).read_text()
        assert log.count(" of 36, epoch 1:") == 1, "what was in a checkpoint was not trained again; one worker writes"
        assert [m.step for m in _history(sweep, f"cola/{number}", "mcc")] == [12, 24, 36]


def test_a_run_that_was_stopped_and_whose_driver_was_killed_comes_to_the_exact_number_of_trials(begin: Begin) -> None:
    sweep = begin(train__epochs=4, search__trials=4)
    sweep.start()
    eventually(sweep.begun, "a trial with a checkpoint")
    sweep.folder.stop_file.touch()
    assert sweep.wait() == 130
    assert sweep.state.status == "stopped"
    stopped = {t.number: t for t in sweep.study().trials}
    assert {t.status for t in stopped.values()} <= {"stopped", "finished"}
    assert "KILLED" in statuses(sweep).values()

    sweep.start()
    eventually(sweep.begun, "a trial that goes on")
    draws = {t.number: t.config for t in sweep.study().trials}
    assert {number: draws[number] for number in stopped} == {number: t.config for number, t in stopped.items()}
    sweep.kill()
    eventually(lambda: not sweep.folder.driven(), "the lock goes with the driver")

    assert sweep.run() == 0, sweep.folder.driver_log.read_text()
    trials = sweep.study().trials
    assert [(t.number, t.status, t.step) for t in trials] == [(n, "finished", 48) for n in range(4)]
    assert {number: trials[number].config for number in draws} == draws, "a trial that goes on keeps its draw"
    assert ledger(sweep) == [(n, TrialState.COMPLETE) for n in range(4)]
    assert statuses(sweep) == {"cola": "FINISHED"} | {f"cola/{n}": "FINISHED" for n in range(4)}
    for number in range(4):
        assert [m.step for m in _history(sweep, f"cola/{number}", "mcc")] == [12, 24, 36, 48]
    assert len(Registry(sweep.home.tracking_uri).versions("fruits-cola")) == 1


def test_a_diverged_trial_is_failed_everywhere_and_the_others_finish(begin: Begin) -> None:
    sweep = begin(search__trials=3, search__space={"train.learning_rate": {"choice": [2e-3, 1e30]}},
                  search__sampler={"name": "random", "seed": 3})  # fmt: skip
    assert sweep.run() == 0, sweep.folder.driver_log.read_text()
    by_rate = {t.number: t.config["train.learning_rate"] for t in sweep.study().trials}
    assert set(by_rate.values()) == {2e-3, 1e30}, "the seed draws both"
    for trial in sweep.study().trials:
        wild = by_rate[trial.number] == 1e30
        assert trial.status == ("failed" if wild else "finished")
        assert ("diverged" in trial.error) == wild
        assert (trial.number, TrialState.FAIL if wild else TrialState.COMPLETE) in ledger(sweep)
        assert statuses(sweep)[f"cola/{trial.number}"] == ("FAILED" if wild else "FINISHED")
        assert (sweep.folder.root / "tune" / "cola" / str(trial.number) / "error.txt").exists() == wild
    assert sweep.study().champion


def _history(sweep: Sweep, name: str, metric: str) -> list[Metric]:
    run = sweep.runs()[f"{sweep.folder.run_id}/{name}"]
    return list(sweep.mlflow().get_metric_history(run.info.run_id, metric))
