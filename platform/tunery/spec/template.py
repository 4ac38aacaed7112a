"""The commented spec that `platform init` writes."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from tunery import tasks
from tunery.spec.base_model import shape_of
from tunery.spec.tree import resolve
from tunery.spec.types import API_VERSION

_TEMPLATE = """\
# A sweep: {trials} trials a task over the ranges below; the best adapter is registered and promoted.
# Check it with `platform validate`, see what it takes with `platform plan`, run it with `platform submit`.
# For completion in an editor: `platform schema > tunery.schema.json`, and this line:
# yaml-language-server: $schema=tunery.schema.json
apiVersion: {api_version}
kind: Sweep
name: {quoted_name}   # run ids and default model names begin with it

# A hub id (pin it with `revision: <commit>`), a folder (./model or /models/x) or embedded:minilm.
model: {{id: {model}}}

# Known: {known}.
tasks: [{tasks}]

# source: hub | path (with root: a folder holding <task>/<split>.parquet, .csv, .tsv or .jsonl) | embedded (generated).
# max_train and max_eval bound the rows; seed draws them.
data: {{source: {source}}}

# method: lora | qlora (LoRA on a base kept in 4 bits) | full (every weight of the base).
# target_modules: the linear layers that get an adapter.
tuner: {{method: lora, rank: 8, alpha: 16, dropout: 0.0, target_modules: [{targets}]}}

# What is left out takes the task's own default.
train: {{learning_rate: 1.0e-3, batch_size: 32, max_length: {max_length}, schedule: linear, warmup_ratio: 0.06}}

search:
  trials: {trials}                                              # a task
  sampler: {{name: tpe, seed: 7}}                         # tpe | gp | random | grid
  pruner: {{name: asha, reduction: 3, grace_epochs: 2}}   # asha and median end weak trials early | none
  warm_start: none                                      # registry: begin with the champions for the task on this base
  # rerun_best: {{seeds: 3, top: 3}}                      # train the best again with other seeds, rank by the mean
  # Dotted path of a tuner or train field -> choice, uniform, log_uniform or int_uniform.
  space:
    tuner.rank: {{choice: [4, 8, 16]}}
    train.learning_rate: {{log_uniform: [3.0e-4, 3.0e-3]}}

# For one task only:
# overrides: {{{first}: {{train.batch_size: 16, search.trials: 8}}}}
# A study for each combination:
# matrix: {{train.schedule: [linear, cosine]}}

resources: {{workers: 1, gpus_per_worker: 0, cpus_per_worker: 1, seats: 8}}   # seats: trials that a pack trains at once
tracking: {{experiment: {quoted_name}}}
registry: {{name: "{name}-{{task}}", alias: champion, min_gain: 0.0}}   # promoted if better by at least min_gain
"""


def template(*, name: str, task_names: Sequence[str], model: str) -> str:
    """The text of a new spec. Unknown tasks and models are left for the check of the spec to tell."""
    return _TEMPLATE.format(
        api_version=API_VERSION,
        name=_name(name),
        quoted_name=_scalar(_name(name)),
        model=_scalar(model),
        tasks=", ".join(map(_scalar, task_names)),
        known=_known(),
        source=_source(task_names),
        first=_scalar(task_names[0]),
        targets=", ".join(_targets(model)),
        max_length=32 if _source(task_names) == "embedded" else 128,
        trials=6,
    )


def _scalar(text: str) -> str:
    """A text as YAML reads it back: quoted only where it must be."""
    plain = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/-]*", text) and resolve(text) == text
    return text if plain else json.dumps(text, ensure_ascii=False)


def _known() -> str:
    return ", ".join(tasks.names())


def _source(named: Sequence[str]) -> str:
    """Where all of them are, as the words of a spec."""
    known = [tasks.get(name) for name in named if name in tasks.names()]
    if known and all(task.generate for task in known):
        return "embedded"
    return "hub" if all(task.hub is not None for task in known) else "path, root: ./data"


def _targets(model: str) -> tuple[str, ...]:
    shape = shape_of(model)
    return tuple(shape.linears()) if shape and shape.family == "bert" else ("q_proj", "k_proj", "v_proj", "o_proj")


def _name(text: str) -> str:
    """A file's stem as a spec's name."""
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")[:63] or "sweep"
