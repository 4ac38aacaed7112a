"""HF Trainer with PEFT (and bitsandbytes for QLoRA) on the drawn rows; needs no tokenizer and no data set library.

At its best: lengths known beforehand, the fused AdamW, no logging, no saving, torch's scaled dot-product attention, no
gradient checkpointing, and a 4-bit base without what `prepare_model_for_kbit_training` puts into float32. The model
runs in eager mode, as Trainer does by default (no torch.compile).
"""

# N sequences, L tokens of the longest

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from peft import LoraConfig, TaskType, get_peft_model
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import (
    AutoModelForSequenceClassification,
    BitsAndBytesConfig,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from benchmarks.steps.lengths import Lengths, Rows
from benchmarks.steps.roof import synchronise

WARM_STEPS = 5
"""Before the clock starts."""
LEAST_STEPS = 3
"""Timed, however slow they are."""

Padding = Literal["padded", "grouped"]


@dataclass(frozen=True)
class Rate:
    """What was measured."""

    examples_per_s: float
    tokens_per_s: float
    """Real ones, padding not counted; by the distribution's mean."""
    step_s: float
    steps: int
    """Timed."""


def load(folder: str, method: str, *, rank: int, targets: Sequence[str], dtype: str, device: torch.device) -> nn.Module:
    """The base with a LoRA adapter; quantised but for lora."""
    kind: torch.dtype = getattr(torch, dtype)
    options: dict[str, Any] = {"num_labels": 2, "dtype": kind, "device_map": {"": device}}
    if method != "lora":
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=kind,
            llm_int8_skip_modules=["score", "classifier"],
        )
    base = AutoModelForSequenceClassification.from_pretrained(folder, **options)
    base.config.pad_token_id = 0
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS, r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=list(targets)
    )
    model: nn.Module = get_peft_model(base, config)
    return model


def train(model: nn.Module, rows: Rows, lengths: Lengths, padding: Padding, *, dtype: str, seconds: float) -> Rate:
    """Train for about so many seconds after a few untimed steps."""
    device = next(model.parameters()).device
    clock = _Clock(device, seconds)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            learning_rate=1e-5,
            num_train_epochs=10_000,
            per_device_train_batch_size=lengths.batch,
            optim="adamw_torch_fused",
            bf16=dtype == "bfloat16",
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
            dataloader_drop_last=True,
            dataloader_pin_memory=device.type == "cuda",
            use_cpu=device.type == "cpu",
            **_sampling(padding),
        )
        collate = _Collator(lengths.padded if padding == "padded" else None)
        trainer = Trainer(
            model=model, args=arguments, train_dataset=_Set(rows), data_collator=collate, callbacks=[clock]
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    examples = clock.steps * lengths.batch
    return Rate(
        examples_per_s=examples / clock.timed_s,
        tokens_per_s=examples * float(rows.lengths.mean()) / clock.timed_s,
        step_s=clock.timed_s / clock.steps,
        steps=clock.steps,
    )


class _Clock(TrainerCallback):  # type: ignore[misc]  # transformers is untyped for mypy
    """Waits for the device when the timed steps begin and when they end, and not in between."""

    def __init__(self, device: torch.device, seconds: float) -> None:
        self._device, self._seconds = device, seconds
        self._began = 0.0
        self.steps = 0
        self.timed_s = 0.0

    def on_step_end(self, _args: Any, state: Any, control: Any, **_: Any) -> None:
        self.steps = state.global_step - WARM_STEPS
        if self.steps == 0:
            synchronise(self._device)
            self._began = time.perf_counter()
        elif self.steps >= LEAST_STEPS and time.perf_counter() - self._began > self._seconds:
            synchronise(self._device)
            self.timed_s = time.perf_counter() - self._began
            control.should_training_stop = True


class _Set(Dataset[dict[str, Any]]):
    """The rows as Trainer reads them."""

    def __init__(self, rows: Rows) -> None:
        self._items = [{"input_ids": row.ids.tolist(), "labels": int(row.label)} for row in rows.examples]

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._items[index]


class _Collator:
    """Pads at the end: to a fixed length, or to the longest of a batch."""

    def __init__(self, fixed: int | None) -> None:
        self._fixed = fixed

    def __call__(self, items: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        length = self._fixed or max(len(item["input_ids"]) for item in items)
        ids_NL = torch.zeros(len(items), length, dtype=torch.long)
        mask_NL = torch.zeros(len(items), length, dtype=torch.long)
        for row, item in enumerate(items):
            ids_NL[row, : len(item["input_ids"])] = torch.tensor(item["input_ids"])
            mask_NL[row, : len(item["input_ids"])] = 1
        return {
            "input_ids": ids_NL,
            "attention_mask": mask_NL,
            "labels": torch.tensor([item["labels"] for item in items]),
        }


def _sampling(padding: Padding) -> dict[str, Any]:
    """By the name that this version of transformers has for it."""
    if any(field.name == "train_sampling_strategy" for field in fields(TrainingArguments)):
        return {"train_sampling_strategy": "group_by_length" if padding == "grouped" else "random"}
    return {"group_by_length": padding == "grouped"}
