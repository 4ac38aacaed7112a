"""The rival: Hugging Face Trainer, with PEFT where an adapter is trained, at the workload's hyperparameters.

It is given its best conditions: no logging, no saving, no progress bar, lengths known beforehand, the fastest AdamW
that it has. Names of the arms: `padded` (every input to max_length), `dynamic` (to the longest of a batch),
`grouped` (the same with batches of similar lengths).
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from typing import Any, Literal

import datasets
import numpy as np
import torch
from peft import LoraConfig, TaskType, get_peft_model
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from benchmarks.trials.measure import Evaluate, SeedResult, Stopwatch, judge, loss
from benchmarks.trials.workload import Tokens, Workload
from tuners.full.config import Config as FullConfig
from tunery import tasks
from tunery.tasks import metrics as task_metrics

Padding = Literal["padded", "dynamic", "grouped"]
PADDING: Mapping[str, Padding] = {"hf-padded": "padded", "hf-dynamic": "dynamic", "hf-grouped": "grouped"}


class _Watch(TrainerCallback):  # type: ignore[misc]  # transformers is untyped for mypy
    """Laps a step; stops after `limit` steps without touching the schedule."""

    def __init__(self, watch: Stopwatch, workload: Workload, limit: int | None) -> None:
        self._watch, self._limit = watch, limit
        self._batch = workload.train.batch_size * workload.train.accumulation
        self._per_epoch, self._rows = workload.steps_per_epoch(), len(workload.train_set)

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._watch.start()

    def on_step_end(self, _args: Any, state: Any, control: Any, **_: Any) -> None:
        done = (state.global_step - 1) % self._per_epoch
        self._watch.lap(min(self._batch, self._rows - done * self._batch))
        if self._limit is not None and state.global_step >= self._limit:
            control.should_training_stop = True


class _Trainer(Trainer):  # type: ignore[misc]  # transformers is untyped for mypy
    """Evaluates outside the watched time and keeps every evaluation's logits out of the Trainer's logs."""

    watch: Stopwatch
    workload: Workload
    evaluations: list[dict[str, float]]

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        task = tasks.get(self.workload.task)
        with self.watch.pause():
            scored = {}
            for split, tokens in self.workload.eval_sets.items():
                output = self.predict(_dataset(tokens, task.kind))
                scored[split] = (np.asarray(output.predictions, dtype=np.float32), np.asarray(output.label_ids))
            first = scored[task.eval_splits[0].name]
            self.evaluations.append({**task_metrics.score(task, scored), "loss": loss(task, *first)})
        return self.evaluations[-1]


def train(
    workload: Workload, seed: int, padding: Padding, watch: Stopwatch, *, limit: int | None, evaluate: Evaluate
) -> SeedResult:
    """Train one trial; it stops after `limit` steps."""
    task = tasks.get(workload.task)
    set_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(workload.model)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    with tempfile.TemporaryDirectory() as folder:
        trainer = _Trainer(
            model=_model(workload, tokenizer.pad_token_id),
            args=_arguments(workload, seed, padding, folder, evaluate),
            train_dataset=_dataset(workload.train_set, task.kind),
            eval_dataset=_dataset(next(iter(workload.eval_sets.values())), task.kind),
            data_collator=_collator(tokenizer, padding, workload.train.max_length),
            processing_class=tokenizer,
            callbacks=[_Watch(watch, workload, limit)],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.watch, trainer.workload, trainer.evaluations = watch, workload, []
        trainer.train()
        if evaluate == "end" or (evaluate == "epochs" and not trainer.evaluations):
            trainer.evaluate()
    trainable = sum(parameter.numel() for parameter in trainer.model.parameters() if parameter.requires_grad)
    return judge(task, seed, trainer.evaluations, trainable)


def _model(workload: Workload, pad_token_id: int) -> torch.nn.Module:
    task = tasks.get(workload.task)
    regression = task.kind == "regression"
    base = AutoModelForSequenceClassification.from_pretrained(
        workload.model,
        num_labels=1 if regression else len(task.labels),
        problem_type="regression" if regression else "single_label_classification",
        dtype=torch.float32,
    )
    base.config.pad_token_id = pad_token_id
    tuner = workload.tuner
    if isinstance(tuner, FullConfig):
        whole: torch.nn.Module = base
        return whole
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=tuner.rank,
        lora_alpha=tuner.alpha,
        lora_dropout=tuner.dropout,
        target_modules=list(tuner.target_modules),
        exclude_modules=_outside_layers(base),
    )
    model: torch.nn.Module = get_peft_model(base, config)
    return model


def _outside_layers(base: torch.nn.Module) -> list[str]:
    """Linear layers such as BERT's pooler, which PEFT would match by the end of their names: no arm adapts them."""
    linears = (name for name, module in base.named_modules() if isinstance(module, torch.nn.Linear))
    return [name for name in linears if not re.search(r"\blayers?\.\d+\.", name)]


def _arguments(workload: Workload, seed: int, padding: Padding, folder: str, evaluate: Evaluate) -> TrainingArguments:
    train = workload.train
    schedule = {"constant": "constant_with_warmup"}.get(train.schedule, train.schedule)
    return TrainingArguments(
        output_dir=folder,
        learning_rate=train.learning_rate,
        num_train_epochs=train.epochs,
        per_device_train_batch_size=train.batch_size,
        per_device_eval_batch_size=64,
        gradient_accumulation_steps=train.accumulation,
        lr_scheduler_type=schedule,
        warmup_steps=workload.warmup_steps(),
        weight_decay=train.weight_decay,
        max_grad_norm=train.clip_norm,
        seed=seed,
        train_sampling_strategy="group_by_length" if padding == "grouped" else "random",
        eval_strategy="epoch" if evaluate == "epochs" else "no",
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
    )


def _collator(tokenizer: Any, padding: Padding, max_length: int) -> DataCollatorWithPadding:
    if padding == "padded":
        return DataCollatorWithPadding(tokenizer, padding="max_length", max_length=max_length)
    return DataCollatorWithPadding(tokenizer)


def _dataset(tokens: Tokens, kind: str) -> datasets.Dataset:
    columns: dict[str, list[Any]] = {
        "input_ids": [example.ids for example in tokens.examples],
        "attention_mask": [np.ones(len(example.ids), dtype=np.int8) for example in tokens.examples],
        "labels": [example.label if kind == "regression" else int(example.label) for example in tokens.examples],
        "length": tokens.lengths.tolist(),
    }
    if tokens.examples[0].types is not None:
        columns["token_type_ids"] = [example.types for example in tokens.examples]
    return datasets.Dataset.from_dict(columns)
