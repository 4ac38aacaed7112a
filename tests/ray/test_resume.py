"""Trials that go on from a checkpoint which somebody has named."""

from __future__ import annotations

import re

import pytest

from storage.checkpoints import CheckpointStore
from tests.ray.conftest import Begin, Sweep, eventually
from tunery.client.local import LocalClient
from tunery.runs import TRAINING_FILES, RunFolder

pytestmark = pytest.mark.ray


def ended(sweep: Sweep, client: LocalClient, run: str) -> Sweep:
    """A run that a client has started, once it has ended."""
    found = Sweep(RunFolder(sweep.home.runs / run), sweep.home, sweep.stack)
    eventually(lambda: not found.folder.driven(), f"the end of {run}")
    assert client.state(run).status == "finished", found.folder.driver_log.read_text()
    return found


def curve(sweep: Sweep) -> dict[str, list[tuple[int, float]]]:
    """What MLflow has of trial 0."""
    run = sweep.runs()[f"{sweep.folder.run_id}/cola/0"]
    history = {name: sweep.mlflow().get_metric_history(run.info.run_id, name) for name in ("train_loss", "loss", "mcc")}
    return {name: [(metric.step, metric.value) for metric in metrics] for name, metrics in history.items()}


def seated(sweep: Sweep) -> list[int]:
    return [int(step) for step in re.findall(r"at step (\d+) of \d+:", sweep.folder.trial_log("cola", 0).read_text())]


def test_a_trial_goes_on_from_a_named_checkpoint_as_it_once_did(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    train = {"epochs": 2, "batch_size": 2, "checkpoint": {"every_steps": 5, "keep": 30}}
    sweep = begin(train=train, search__trials=1, search__space={}, resources__seats=1)
    store = CheckpointStore(sweep.folder.checkpoints("cola", 0))
    client = LocalClient(sweep.home)
    sweep.start()
    eventually(lambda: store.steps() and max(store.steps()) >= 30, "a checkpoint of step 30")
    sweep.folder.stop_file.touch()
    assert sweep.wait() == 130

    # Set back: what it had done after step 20 it does again.
    run = sweep.folder.run_id
    assert client.resume(run, begin=client.checkpoint("0@20", of=run)).outcome == "resumed"
    ended(sweep, client, run)
    assert seated(sweep) == [0, 20]
    assert list((sweep.folder.root / "checkpoints" / "cola" / "0").glob("set-aside-*-step30"))
    whole = curve(sweep)
    assert [step for step, _ in whole["mcc"]] == [48, 96]

    # In a new run of the same configuration it goes on at the checkpoint's step, and comes to the same.
    handle = client.resume(run, fresh=True, begin=client.checkpoint(f"{run}/0@60"))
    assert handle.run_id == f"{run}.2"
    again = ended(sweep, client, handle.run_id)
    assert seated(again) == [60]
    for name, values in curve(again).items():
        assert values == whole[name][1:], f"{name}: every digit"
    assert again.study().model_version == "2"
    assert not [file for file in again.folder.adapter("cola", 0).iterdir() if file.name in TRAINING_FILES]
    assert store.steps()[0] == 96, "the first run is as it was"

    # Of another configuration it has the weights alone.
    other = begin("other", train=train | {"epochs": 1, "learning_rate": 1e-4, "batch_size": 8}, search__trials=1,
                  search__space={}, resources__seats=1)  # fmt: skip
    plan = other.plan
    other.folder.plan_file.unlink()
    client.send(plan, begin=client.checkpoint(f"{run}/0"))
    other = ended(sweep, client, plan.run_id)
    assert seated(other) == [0]
    assert "begins with the weights of checkpoint" in other.folder.trial_log("cola", 0).read_text()
    (first, *_) = curve(other)["train_loss"]
    assert first[1] < 0.5 * whole["train_loss"][0][1], "what was learned is there"

    # And one that has made all its steps has nothing to go on with.
    full = client.resume(run, fresh=True, begin=client.checkpoint(f"{run}/0@96"))
    folder = RunFolder(sweep.home.runs / full.run_id)
    eventually(lambda: not folder.driven(), "the end")
    assert folder.state().status == "failed"
    assert "has made all 96 steps of this configuration: nothing is left to train" in folder.state().studies[0].error
