"""Bytes that sharded training sends: a pack of K seats beside K FSDP2 jobs of one adapter each.

    python -m benchmarks.sharding

Both train LoRA on the query and value layers of the same random decoder, in processes of this machine that talk over
gloo. A job is transformers' model with PEFT's adapter, with `fully_shard` on each layer, on the embeddings and on the
whole. A pack's step and a step of each of the K jobs do the same optimiser steps.

What is counted: the bytes that a process hands to the kernel to be sent (`wchar` of /proc/self/io: gloo writes to its
sockets and to nothing else there), headers and control messages included, a worker, mean over workers and steps. The
kinds are told apart by running a mode that sees each collective; theirs are the bytes of the tensors, not of the wire.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig as PeftConfig
from peft import get_peft_model
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForSequenceClassification, Qwen2Config

from benchmarks.report import machine, save, table
from tuners.config import TrainConfig
from tuners.engine import Base, BaseSpec, Example, HeadSpec, Pack, SeatSpec, Workers
from tuners.lora.config import Config as LoraConfig

TARGETS = ("q_proj", "v_proj")


@dataclass(frozen=True)
class Setting:
    """What is trained."""

    folder: str
    workers: int
    seats: tuple[int, ...]
    rank: int
    batch: int
    length: int
    steps: int
    vocabulary: int


@dataclass(frozen=True)
class Sent:
    """One worker's bytes a step."""

    wire: float
    kinds: dict[str, float]
    """Collective -> bytes of its tensors."""


class Text:
    """Random tokens of one length."""

    def __init__(self, setting: Setting) -> None:
        draw = np.random.default_rng(0)
        rows = setting.batch * 64
        self._ids = draw.integers(5, setting.vocabulary, (rows, setting.length)).astype(np.int32)
        self.lengths = np.full(rows, setting.length, np.int32)

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> Example:
        return Example(self._ids[index], None, float(index % 2))


class Kinds(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's mode is untyped
    """Adds up the tensors that collectives are called with: what a gather returns, what a sum starts from."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func)
        if name.startswith("c10d."):
            self.bytes[name.split(".")[1]] += _largest(args)
        return func(*args, **(kwargs or {}))


def _largest(values: Any) -> int:
    if isinstance(values, torch.Tensor):
        return values.nbytes
    return max(map(_largest, values), default=0) if isinstance(values, list | tuple) else 0


def measured(step: Callable[[], object], steps: int) -> Sent:
    """After one step to warm up."""
    step()
    distributed.barrier()
    before = _written()
    for _ in range(steps):
        step()
    wire = _written() - before
    distributed.barrier()
    with Kinds() as kinds:
        step()
    return Sent(wire / steps, dict(kinds.bytes))


def _written() -> int:
    return int(
        next(line for line in Path("/proc/self/io").read_text().splitlines() if line.startswith("wchar")).split()[1]
    )


def pack(setting: Setting, seats: int) -> tuple[Sent, int]:
    """A pack of so many seats; and the bytes of the base that this worker holds."""
    held = Pack(Base.load(BaseSpec(setting.folder), group=Workers()))
    train = {"batch_size": setting.batch, "epochs": 1, "learning_rate": 1e-4, "max_length": setting.length}
    for seat in range(seats):
        held.join(
            SeatSpec(
                name=str(seat),
                tuner=LoraConfig(rank=setting.rank, target_modules=TARGETS),
                train=TrainConfig(seed=seat, **train),
                head=HeadSpec("classification", ("no", "yes")),
                train_set=Text(setting),
                eval_sets={},
            )
        )
    return measured(held.step, setting.steps), held.base.held_bytes


def jobs(setting: Setting, count: int) -> Sent:
    """So many jobs' steps, one after the other: they are alike, so one model stands for all."""
    model = AutoModelForSequenceClassification.from_pretrained(setting.folder, num_labels=2)
    model = get_peft_model(model, PeftConfig(task_type="SEQ_CLS", r=setting.rank, target_modules=list(TARGETS)))
    mesh = init_device_mesh("cpu", (setting.workers,))
    backbone = model.base_model.model.model
    for layer in backbone.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(backbone.embed_tokens, mesh=mesh).set_unshard_in_backward(False)
    fully_shard(model, mesh=mesh)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-4)
    text, mine = Text(setting), range(distributed.get_rank(), setting.batch, setting.workers)
    ids = torch.from_numpy(np.stack([text[row].ids for row in mine]).astype(np.int64))
    labels = torch.tensor([int(text[row].label) for row in mine])

    def step() -> None:
        for _ in range(count):
            model(input_ids=ids, labels=labels).loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimiser.step()
            optimiser.zero_grad()

    return measured(step, setting.steps)


def work(rank: int, setting: Setting, folder: str) -> None:
    """One worker, through all that is measured."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=setting.workers)
    found = {seats: (*pack(setting, seats), jobs(setting, seats)) for seats in setting.seats}
    torch.save(found, f"{folder}/{rank}")
    distributed.barrier()
    distributed.destroy_process_group()


def run(setting: Setting) -> list[dict[int, tuple[Sent, int, Sent]]]:
    """What each worker found."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        processes = [context.Process(target=work, args=(rank, setting, folder)) for rank in range(setting.workers)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
            assert process.exitcode == 0, f"a worker ended with {process.exitcode}"
        return [torch.load(f"{folder}/{rank}", weights_only=False) for rank in range(setting.workers)]


def _mean(values: Sequence[Sent]) -> Sent:
    kinds = {name for value in values for name in value.kinds}
    return Sent(
        sum(value.wire for value in values) / len(values),
        {name: sum(value.kinds.get(name, 0) for value in values) / len(values) for name in sorted(kinds)},
    )


def _mb(size: float) -> str:
    return f"{size / 1e6:.2f}"


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="benchmarks.sharding")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seats", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=32)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--vocabulary", type=int, default=8000)
    options = parser.parse_args()
    config = Qwen2Config(
        hidden_size=options.hidden,
        intermediate_size=3 * options.hidden,
        num_hidden_layers=options.layers,
        num_attention_heads=options.hidden // 64,
        num_key_value_heads=options.hidden // 64,
        vocab_size=options.vocabulary,
        max_position_embeddings=512,
        pad_token_id=0,
    )
    with tempfile.TemporaryDirectory() as folder:
        AutoModelForSequenceClassification.from_config(config).model.save_pretrained(folder)
        setting = Setting(
            folder,
            options.workers,
            tuple(options.seats),
            options.rank,
            options.batch,
            options.length,
            options.steps,
            options.vocabulary,
        )
        found = run(setting)
    rows: list[list[str]] = []
    content: list[dict[str, Any]] = []
    for seats in setting.seats:
        ours, theirs = _mean([worker[seats][0] for worker in found]), _mean([worker[seats][2] for worker in found])
        held = [worker[seats][1] for worker in found]
        per_seat = [ours.wire / seats, theirs.wire / seats]
        rows.append([str(seats), *map(_mb, (ours.wire, theirs.wire, *per_seat)), f"{theirs.wire / ours.wire:.1f}x"])
        content.append({"seats": seats, "pack": vars(ours), "jobs": vars(theirs), "base_bytes_a_worker": held})
    header = ["K", "pack, MB a step", "K jobs", "pack, MB a step a seat", "K jobs", "ratio"]
    print(table(header, rows))
    for each in content:
        kinds = [
            f"{arm}: " + ", ".join(f"{k} {_mb(v)}" for k, v in each[arm]["kinds"].items()) for arm in ("pack", "jobs")
        ]
        print(f"K = {each['seats']}, tensors of the collectives, MB a step a worker: {'; '.join(kinds)}")
    print(f"base on each worker, MB: {', '.join(_mb(size) for size in content[0]['base_bytes_a_worker'])}")
    path = save("sharding", {"machine": machine(), "options": vars(options), "settings": content})
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
