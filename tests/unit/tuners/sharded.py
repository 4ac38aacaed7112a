"""What the workers of test_sharding run. Every function is called on all of them."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.debug import CommDebugMode

from tests.unit.tuners.conftest import seat_spec
from tests.unit.tuners.test_generation import asking
from tuners.engine import Base, BaseSpec, Group, Pack, SeatState, Workers
from tuners.full.config import Config as FullConfig
from tuners.lora.config import Config as LoraConfig
from tuners.qlora.config import Config as QloraConfig

Fields = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Case:
    """A pack to run."""

    folder: str
    fields: Fields
    """By seat."""
    quantisation: Literal["none", "nf4-double"] = "none"
    dtype: Literal["float32", "float64"] = "float32"
    max_tokens: int | None = None
    checkpointing: bool = False
    steps: int = 1
    states: Mapping[str, bytes] = field(default_factory=dict)
    """What seats go on from."""
    method: Literal["lora", "full"] = "lora"
    answers: bool = False
    """The seats generate."""


@dataclass(frozen=True)
class Course:
    """How it went on one worker."""

    losses: dict[str, list[float]]
    diverged: dict[str, str]
    logits: dict[str, np.ndarray]
    eval_loss: dict[str, float]
    states: dict[str, bytes]
    held: int
    """Bytes of the base in this worker's memory."""
    answers: dict[str, list[list[int]]]
    """What was generated."""


def course(case: Case, group: Group | None = None) -> Course:
    """Run a pack."""
    pack = _pack(case, group)
    losses: dict[str, list[float]] = {name: [] for name in case.fields}
    diverged: dict[str, str] = {}
    for _ in range(case.steps):
        for name, report in pack.step().items():
            losses[name].append(report.loss)
            diverged |= {name: report.diverged} if report.diverged else {}
    found = {name: splits["dev"] for name, splits in pack.evaluate(pack.seats).items()}
    return Course(
        losses,
        diverged,
        {name: each.logits for name, each in found.items()},
        {name: each.loss for name, each in found.items()},
        {name: pack.state(name).to_bytes() for name in pack.seats},
        pack.base.held_bytes,
        {name: [ids.tolist() for ids in each.answers] for name, each in found.items()},
    )


def courses(cases: Mapping[str, Case]) -> dict[str, Course]:
    """Run packs one after the other."""
    group = Workers()
    return {name: course(case, group) for name, case in cases.items()}


def traffic(case: Case) -> list[dict[str, int]]:
    """The collectives of each step on this worker, by their names."""
    pack = _pack(case, Workers())
    found = []
    for _ in range(case.steps):
        with CommDebugMode() as calls:  # type: ignore[no-untyped-call]
            pack.step()
        found.append({str(name).removeprefix("c10d."): count for name, count in calls.get_comm_counts().items()})
    return found


def memory(case: Case) -> tuple[int, int]:
    """Bytes of the base, after training and evaluating: as counted, and as the process's tensors show it."""
    before = _tensor_bytes()
    pack = _pack(case, Workers())
    for _ in range(case.steps):
        pack.step()
    pack.evaluate(pack.seats)
    held = pack.base.held_bytes
    for name in pack.seats:
        pack.leave(name)
    return held, _tensor_bytes() - before


def out_of_memory(case: Case) -> tuple[str, int | None]:
    """What comes of a forward that does not fit: the error's name, and the bound on tokens."""
    pack = _pack(case, Workers())

    def never(*_: object) -> None:
        raise torch.OutOfMemoryError

    pack._forward = never  # type: ignore[method-assign,assignment]
    try:
        pack.step()
    except torch.OutOfMemoryError as error:
        return type(error).__name__, pack.max_tokens
    return "", None


def _pack(case: Case, group: Group | None) -> Pack:
    trained = case.method == "full"
    spec = BaseSpec(
        case.folder, quantisation=case.quantisation, trained=trained, language=case.answers, dtype=case.dtype
    )
    pack = Pack(Base.load(spec, group=group, checkpointing=case.checkpointing), max_tokens=case.max_tokens)
    config = FullConfig if trained else LoraConfig if case.quantisation == "none" else QloraConfig
    make = asking if case.answers else seat_spec
    for name, values in case.fields.items():
        state = SeatState.from_bytes(case.states[name]) if name in case.states else None
        pack.join(make(name, config=config, **values), state)
    return pack


def _tensor_bytes() -> int:
    gc.collect()
    storages = {}
    for each in gc.get_objects():
        if isinstance(each, torch.Tensor) and not isinstance(each, DTensor):
            storage = each.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())
