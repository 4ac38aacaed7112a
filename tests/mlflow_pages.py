"""A sweep on MLflow's own pages, as a person opens them in a browser."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from mlflow import MlflowClient

from tests.browser import Browser


@dataclass(frozen=True)
class Study:
    """What there is to see."""

    experiment: str
    name: str
    run: str
    trials: dict[str, str]
    """Name -> run."""
    longest: str
    """The run of the trial that trained for most epochs."""
    model: str


def study_of(client: MlflowClient, experiment: str, model: str) -> Study:
    """The newest study of an experiment."""
    found = client.get_experiment_by_name(experiment)
    assert found is not None, experiment
    runs = client.search_runs([found.experiment_id], order_by=["attributes.start_time DESC"])
    parent = next(run for run in runs if "mlflow.parentRunId" not in run.data.tags)
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    names = {str(run.info.run_name): str(run.info.run_id) for run in children}
    longest = str(max(children, key=lambda run: run.data.metrics.get("epoch", 0.0)).info.run_id)
    return Study(str(found.experiment_id), str(parent.info.run_name), str(parent.info.run_id), names, longest, model)


def look(browser: Browser, address: str, login: tuple[str, str] | None, study: Study, pictures: Path | None) -> None:
    """Open each page and wait for what it must show; `pictures`: the folder for what is seen."""
    parts = urlsplit(address)
    if login:
        # Once, and remembered: a page whose own address holds a password may not ask its server for anything.
        browser.open(f"{parts.scheme}://{login[0]}:{login[1]}@{parts.netloc}/")
    base = f"{parts.scheme}://{parts.netloc}/#"
    runs, experiments = json.dumps(sorted(study.trials.values())), json.dumps([study.experiment])
    pages = {
        "study": (f"/experiments/{study.experiment}/runs/{study.run}", ("Child runs", *study.trials)),
        "trial": (
            f"/experiments/{study.experiment}/runs/{study.longest}/model-metrics",
            ("(objective)", "(loss)", "(train_loss)", "(evaluated_per_s)"),
        ),
        "comparison": (
            f"/compare-runs?runs={runs}&experiments={experiments}",
            (f"Comparing {len(study.trials)} Runs", "Parallel Coordinates Plot", "Run details", *study.trials),
        ),
        "model": (f"/models/{study.model}", ("Version 1", "champion", "tunery.promotion.")),
    }
    for name, (path, texts) in pages.items():
        browser.open(base + path)
        browser.unroll()
        browser.shows(*texts)
        if name == "comparison":
            assert browser.count(".js-plotly-plot .parcoords"), "the parallel coordinates are drawn"
        if pictures is not None:
            browser.close_all("Close")  # a panel that offers to chat
            browser.picture(pictures / f"mlflow-{name}.png")
