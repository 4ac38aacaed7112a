"""One seat of a pack: its parameters, its place in the data, its fate."""

# N examples of a step, P parameters

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tuners.engine.bank import Row, Update
from tuners.engine.base import Base
from tuners.engine.method import adapter_of
from tuners.engine.schedule import Schedule
from tuners.engine.slots import Side, Slot
from tuners.engine.state import VERSION, SeatState
from tuners.engine.streams import INIT, generator, permutation
from tuners.engine.types import AnyExample, Progress, SeatSpec
from tuners.errors import SeatError

_ZERO_PATIENCE = 3
"""Steps in a row with a gradient of exactly 0 after which a seat is given up."""
_CONSTANT_PATIENCE = 5
"""Steps in a row with the same logits for every example."""


@dataclass(frozen=True)
class Batch:
    """What one optimiser step of one seat reads."""

    examples: Sequence[AnyExample]
    labels: Tensor
    """float [N]"""
    tokens: int
    weight: int
    """What a step's loss is the mean over: its examples, or the tokens of their answers."""
    wrong_label: str
    """Why a label cannot be trained on; empty where all can."""


class Seat:
    """Holds no compute; `Pack` runs it."""

    def __init__(self, spec: SeatSpec, base: Base) -> None:
        _check(spec, base)
        self.spec = spec
        self.schedule = Schedule(spec.train, len(spec.train_set))
        self.adapter = adapter_of(spec.tuner, base)
        self.head = base.head(spec.head)
        segments = [*self.adapter.segments, *self.head.segments]
        self.row = Row(segments, base.device, base.trained_dtype, spec.train.optimizer, alone=base.spec.trained)
        self.slots: dict[int, Slot] = {}
        self.side: Side | None = None
        self.diverged = ""
        self._frozen = 0 if spec.tuner.trains_base else base.parameters
        self._evaluated_at, self._zero_steps, self._constant_steps = 0, 0, 0
        self._order: tuple[int, Any] = (-1, None)
        for segment, values in zip(self.row.segments, self.row.views(self.row.theta).values(), strict=True):
            # By name, not by place: another target more does not change what the others start from.
            draw = torch.empty(segment.shape)
            segment.fill(draw, generator(spec.train.seed, INIT, zlib.crc32(segment.name.encode())))
            values.copy_(draw)
        self.bind()

    @property
    def finished(self) -> bool:
        """All steps are done."""
        return self.row.step >= self.schedule.steps

    @property
    def active(self) -> bool:
        """Still trains."""
        return not self.finished and not self.diverged

    def bind(self) -> None:
        """After the row has moved: point the layers at it."""
        theta, gradient = self.row.views(self.row.theta), self.row.views(self.row.g)
        self.slots = self.adapter.slots(theta, gradient)
        self.side = self.adapter.side(theta, gradient)
        self.head.bind(theta, gradient)

    def progress(self) -> Progress:
        """Where the seat stands."""
        step, due = self.row.step, self.schedule.evaluation_at(self.row.step)
        return Progress(
            step=step,
            steps=self.schedule.steps,
            epoch=step / self.schedule.steps_per_epoch,
            evaluation_due=due and self._evaluated_at != step,
            finished=self.finished,
            trainable=self.row.size,
            total=self.row.size + self._frozen,
        )

    def evaluated(self) -> None:
        """The evaluation that was due has been made."""
        self._evaluated_at = self.row.step

    def batch(self) -> Batch:
        """The next step's examples, in the seat's own order."""
        epoch, first, end = self.schedule.batch_bounds(self.row.step)
        if self._order[0] != epoch:
            self._order = (epoch, permutation(self.spec.train.seed, epoch, self.schedule.examples))
        examples = [self.spec.train_set[int(index)] for index in self._order[1][first:end]]
        labels = np.array([example.label for example in examples], np.float64)
        tokens = sum(len(example.ids) for example in examples)
        weight = tokens - int(labels.sum()) if self.head.answers else len(examples)
        return Batch(examples, torch.from_numpy(labels), tokens, weight, self._wrong_label(examples, labels))

    def update(self) -> Update:
        """The numbers of the next update."""
        train = self.spec.train
        return Update(self.schedule.learning_rate(self.row.step), train.weight_decay, train.clip_norm)

    def judge(self, loss: float, norm: float, *, constant: bool) -> str:
        """Count what looks dead; why the seat has diverged, or nothing."""
        self._zero_steps = self._zero_steps + 1 if norm == 0 else 0
        self._constant_steps = self._constant_steps + 1 if constant else 0
        if not math.isfinite(loss):
            return f"the loss is {loss} at step {self.row.step + 1}"
        if not math.isfinite(norm):
            return f"the gradient's norm is {norm} at step {self.row.step + 1}"
        if self._zero_steps >= _ZERO_PATIENCE:
            return f"the gradient has been exactly 0 for {self._zero_steps} steps"
        if self._constant_steps >= _CONSTANT_PATIENCE:
            return f"the logits have been the same for all examples for {self._constant_steps} steps"
        return ""

    def state(self) -> SeatState:
        """Everything to go on elsewhere, on the CPU: its own memory where that is there, which a step changes."""
        row = self.row
        values = {"theta": row.theta[: row.size], **row.moments}
        tensors = {name: value.cpu() for name, value in values.items()}
        meta = {
            "version": VERSION,
            "optimizer": self.spec.train.optimizer,
            "step": row.step,
            "evaluated_at": self._evaluated_at,
            "zero_steps": self._zero_steps,
            "constant_steps": self._constant_steps,
            "segments": [[segment.name, list(segment.shape)] for segment in row.segments],
        }
        return SeatState(tensors, meta)

    def restore(self, state: SeatState) -> None:
        """Go on from a state. Raises SeatError for one of another shape, or with another optimiser's moments."""
        given = {name: torch.Size(shape) for name, shape in state.meta["segments"]}
        if difference := _difference(given, {segment.name: segment.shape for segment in self.row.segments}):
            raise SeatError(f"the state given for seat {self.spec.name!r} is another configuration's: {difference}")
        if state.moments:
            trained, own = state.meta.get("optimizer", "adamw"), self.spec.train.optimizer
            if trained != own:
                raise SeatError(
                    f"the state given for seat {self.spec.name!r} has the moments of {trained}; this seat has {own}"
                )
            for name, values in self.row.moments.items():
                values.copy_(state.moments[name])
        # By name: another optimiser keeps the parts in another order.
        pieces = torch.split(state.tensors["theta"], [size.numel() for size in given.values()])
        parts = dict(zip(given, pieces, strict=True))
        for name, values in self.row.views(self.row.theta).items():
            values.copy_(parts[name].view(given[name]))
        self.row.step = int(state.meta["step"])
        self._evaluated_at = int(state.meta["evaluated_at"])
        self._zero_steps = int(state.meta["zero_steps"])
        self._constant_steps = int(state.meta["constant_steps"])

    def _wrong_label(self, examples: Sequence[AnyExample], labels_N: Any) -> str:
        if self.spec.head.kind == "regression":
            return ""
        if self.head.answers:
            lengths = np.array([len(example.ids) for example in examples])
            fits = (labels_N >= 1) & (labels_N < lengths)
            return "" if fits.all() else f"an example of {lengths[~fits][0]} tokens has no prompt or no answer"
        fits = (labels_N >= 0) & (labels_N < self.spec.head.outputs) & (labels_N == np.floor(labels_N))
        return "" if fits.all() else f"label {labels_N[~fits][0]:g} is none of the {self.spec.head.outputs} classes"


def _difference(given: Mapping[str, Sequence[int]], wanted: Mapping[str, Sequence[int]]) -> str:
    """The first part whose shape is not the wanted one."""

    def size(shape: Sequence[int] | None) -> str:
        return "missing" if shape is None else " x ".join(map(str, shape))

    names = sorted(given.keys() | wanted.keys())
    sizes = ((name, size(given.get(name)), size(wanted.get(name))) for name in names)
    return next((f"{name} is {there} in it, here {here}" for name, there, here in sizes if there != here), "")


def _check(spec: SeatSpec, base: Base) -> None:
    if not len(spec.train_set):
        raise SeatError(f"seat {spec.name!r} has no training examples")
    if spec.head.kind == "classification" and spec.head.outputs < 2:
        raise SeatError(f"seat {spec.name!r} classifies into {spec.head.outputs} classes; at least 2 are needed")
    if (spec.tuner.trains_base, spec.tuner.trains_beside) != (base.spec.trained, base.spec.beside):
        raise SeatError(f"seat {spec.name!r} ({spec.tuner.method}) and this base differ about what is trained")
    if spec.tuner.quantisation != base.spec.quantisation:
        wanted, got = spec.tuner.quantisation, base.spec.quantisation
        raise SeatError(f"seat {spec.name!r} needs a base with quantisation {wanted!r}; this one's is {got!r}")
    if spec.train.optimizer == "paged_adamw_8bit" and base.device.type != "cuda":
        raise SeatError(
            f"seat {spec.name!r}: paged_adamw_8bit needs a CUDA device, this one is {base.device.type}: use adamw_8bit"
        )
    for examples in (spec.train_set, *spec.eval_sets.values()):
        longest = int(examples.lengths.max()) if len(examples) else 0
        if longest > base.longest:
            raise SeatError(f"seat {spec.name!r} has an example of {longest} tokens; at most {base.longest} fit")
