"""A run with the hub gone: everything in it, also what is registered, comes from what was fetched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.stand_ins.hubs import Hubs, Repository, serving
from tests.unit.inference.conftest import make_base
from tests.unit.test_offline import data_set

pytestmark = pytest.mark.ray

SPEC = """
apiVersion: tunery/v1
kind: Sweep
name: away
model: {id: org/tiny, dtype: float32}
tasks: [reviews]
custom:
  reviews:
    {kind: classification, text: text, label: label, labels: [bad, good], hub: {repo: org/reviews, config: reviews}}
tuner: {method: lora, rank: 2, target_modules: [query]}
train: {epochs: 1, max_length: 16, batch_size: 4}
resources: {packs: 1}
"""


def test_a_run_that_is_fetched_ahead_needs_no_hub(tmp_path: Path) -> None:
    spec = tmp_path / "away.yaml"
    spec.write_text(SPEC)
    model = Repository.of(make_base(tmp_path / "made", bert=True))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}

    def platform(*words: str) -> Any:
        command = [sys.executable, "-m", "tunery.cli.app", *words, "-o", "json"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)
        logs = "".join(log.read_text() for log in (tmp_path / "home").glob("runs/*/logs/*.log"))
        assert done.returncode == 0, done.stderr + logs[-3000:]
        return json.loads(done.stdout)

    with serving(Hubs({"org/tiny": model}, {"org/reviews": data_set(tmp_path / "data")})) as hubs:
        environment |= {"HF_HOME": str(tmp_path / "hf"), "HF_ENDPOINT": hubs.url, "TUNERY_HOME": str(tmp_path / "home")}
        platform("fetch", str(spec))

    (study,) = platform("submit", str(spec), "--offline")["studies"]
    assert (study["status"], study["champion"]) == ("finished", True)
    (adapter,) = (tmp_path / "home").glob("runs/*/adapters/reviews/0")
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("org/tiny", model.commit)
    environment["HF_HUB_OFFLINE"] = "1"
    assert platform("predict", study["model"], "--text", "the cat sat")["label"] in ("bad", "good")
