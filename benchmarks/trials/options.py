"""The command-line options of the benchmarks that train on real rows."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from benchmarks.trials.workload import Limits, Tuner, Workload, load
from tuners.config import TrainConfig
from tuners.full.config import Config as FullConfig
from tuners.lora.config import Config as LoraConfig


def parser(
    description: str, *, max_train: int = 2048, max_eval: int = 0, epochs: int = 1, every_weight: bool = False
) -> argparse.ArgumentParser:
    """A parser with the options of data, model and hyperparameters; the defaults are those of the claims.

    `every_weight`: the benchmark can train every weight too.
    """
    result = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    data = result.add_argument_group("data and model")
    data.add_argument(
        "--data",
        type=Path,
        default=os.environ.get("TUNERY_DATA"),
        help="folder with <task>/<split>.parquet; default: the environment's TUNERY_DATA",
    )
    data.add_argument("--model", default="embedded:minilm", help="a local model folder, or embedded:minilm")
    data.add_argument("--max-train", type=int, default=max_train, help="training rows, a seeded sample; 0: all")
    data.add_argument("--max-eval", type=int, default=max_eval, help="rows of each evaluation split; 0: all")
    tuning = result.add_argument_group("hyperparameters, equal for every arm")
    if every_weight:
        tuning.add_argument("--method", choices=("lora", "full"), default="lora")
    result.set_defaults(method="lora")
    tuning.add_argument("--rank", type=int, default=8)
    tuning.add_argument("--alpha", type=float, default=16.0)
    tuning.add_argument("--dropout", type=float, default=0.1, help="of the adapter's input")
    tuning.add_argument("--targets", nargs="+", default=["query", "value"], help="linear layers with an adapter")
    tuning.add_argument("--learning-rate", type=float, default=3e-4)
    tuning.add_argument("--epochs", type=int, default=epochs)
    tuning.add_argument("--batch-size", type=int, default=32)
    tuning.add_argument("--max-length", type=int, default=128)
    tuning.add_argument("--schedule", choices=("linear", "cosine", "constant"), default="cosine")
    tuning.add_argument("--warmup-ratio", type=float, default=0.06)
    tuning.add_argument("--weight-decay", type=float, default=0.01)
    tuning.add_argument("--clip-norm", type=float, default=1.0)
    machine = result.add_argument_group("machine")
    machine.add_argument("--cores", type=int, default=os.cpu_count() or 1, help="threads that an arm may use in all")
    machine.add_argument("--name", default="", help="name of the JSON file in benchmarks/results")
    return result


def hyperparameters(options: argparse.Namespace) -> tuple[LoraConfig, TrainConfig]:
    """What is trained by an adapter, and how."""
    tuner = LoraConfig(
        rank=options.rank, alpha=options.alpha, dropout=options.dropout, target_modules=tuple(options.targets)
    )
    train = TrainConfig(
        learning_rate=options.learning_rate,
        epochs=options.epochs,
        batch_size=options.batch_size,
        max_length=options.max_length,
        schedule=options.schedule,
        warmup_ratio=options.warmup_ratio,
        weight_decay=options.weight_decay,
        clip_norm=options.clip_norm,
    )
    return tuner, train


def workload(options: argparse.Namespace, task: str) -> Workload:
    """The workload that the options describe. SystemExit where no data folder is named."""
    if options.data is None:
        raise SystemExit("name the data folder with --data FOLDER or the environment's TUNERY_DATA")
    adapter, train = hyperparameters(options)
    tuner: Tuner = FullConfig() if options.method == "full" else adapter
    limits = Limits(max_train=options.max_train or None, max_eval=options.max_eval or None)
    return load(task, root=options.data, model=options.model, tuner=tuner, train=train, limits=limits)
