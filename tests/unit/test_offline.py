"""From a hub to a pack's base and a study's rows, with the server gone in between: the code that a run goes through."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.stand_ins.hubs import Hubs, Repository, serving
from tests.unit.inference.conftest import make_base

CARD = """---
configs:
- config_name: other
  data_files:
  - {split: train, path: other/train-*}
- config_name: reviews
  data_files:
  - {split: train, path: reviews/train-*}
  - {split: validation, path: reviews/validation-*}
---
# Reviews
"""
SPEC = """
apiVersion: tunery/v1
kind: Sweep
name: away
model: {id: org/tiny, source: SOURCE, dtype: float32}
tasks: [reviews]
custom:
  reviews:
    {kind: classification, text: text, label: label, labels: [bad, good], hub: {repo: org/reviews, config: reviews}}
tuner: {method: lora, rank: 2, target_modules: [query]}
train: {epochs: 1, max_length: 16}
"""
LOAD = """
import json, sys
from pathlib import Path
from tuners.engine import Base, BaseSpec
from storage.fetching import base_folder
from tunery.cluster.data import prepare
from tunery.plan import compile_plan
from tunery.spec import load_spec

study = compile_plan(load_spec(sys.argv[1])).studies[0]
data = prepare(study, Path(sys.argv[2]))
base = Base.load(BaseSpec(base_folder(study.model.id, study.model.revision, study.model.source)))
print(json.dumps({"rows": [data.train_rows, data.eval_rows], "parameters": base.parameters}))
"""


def data_set(folder: Path) -> Repository:
    """Two configurations, in the hub's layout."""
    (folder / "README.md").parent.mkdir(parents=True)
    (folder / "README.md").write_text(CARD)
    for name, count in (("other/train", 900), ("reviews/train", 12), ("reviews/validation", 4)):
        table = pa.table({"text": [f"the cat sat {n}" for n in range(count)], "label": [n % 2 for n in range(count)]})
        file = folder / f"{name}-00000-of-00001.parquet"
        file.parent.mkdir(exist_ok=True)
        pq.write_table(table, file)
    return Repository.of(folder)


def tunery(*words: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize("source", ["hub", "modelscope"])
def test_what_was_fetched_is_loaded_without_the_hub(source: str, tmp_path: Path) -> None:
    spec = tmp_path / "away.yaml"
    spec.write_text(SPEC.replace("SOURCE", source))
    model = Repository.of(make_base(tmp_path / "made", bert=True))
    cli = ("-m", "tunery.cli.app")
    with serving(Hubs({"org/tiny": model}, {"org/reviews": data_set(tmp_path / "data")})) as hubs:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("HF_", "MODELSCOPE_"))},
            "HF_HOME": str(tmp_path / "hf"),
            "MODELSCOPE_CACHE": str(tmp_path / "modelscope"),
            "HF_ENDPOINT": hubs.url,
            "MODELSCOPE_ENDPOINT": hubs.url,
            "TUNERY_HOME": str(tmp_path / "home"),
        }
        fetched = json.loads(tunery(*cli, "fetch", str(spec), "-o", "json", environment=environment).stdout)["fetched"]
        assert [(each["kind"], each["id"], each["config"]) for each in fetched] == [
            ("model", "org/tiny", None), ("data", "org/reviews", "reviews")
        ]  # fmt: skip
        assert sorted(fetched[1]["files"]) == [
            "README.md", "reviews/train-00000-of-00001.parquet", "reviews/validation-00000-of-00001.parquet"
        ]  # fmt: skip

    # The hub is gone: at its address nobody listens any more.
    tunery(*cli, "plan", str(spec), "--offline", environment=environment)
    away = {**environment, "HF_HUB_OFFLINE": "1"}
    loaded = json.loads(
        tunery("-c", LOAD, str(spec), str(tmp_path / "cache"), environment=away).stdout.splitlines()[-1]
    )
    assert loaded["rows"] == [12, 4]
    assert loaded["parameters"] > 10_000
