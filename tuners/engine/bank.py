"""Parameters, gradients and AdamW's moments of many seats as rows of a matrix, so that an update is one pass.

Rows of about the same length share a bank, so that a small seat does not pay for a large one.
"""

# S rows, P parameters of the longest row, rounded up; R those whose moments are not in 8 bits

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tuners.config import Optimizer
from tuners.engine.group import Group
from tuners.engine.method import Segment

if TYPE_CHECKING:
    from tuners.engine.eight_bits import EightBits

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8
_BLOCK = {"cpu": 1 << 17, "cuda": 1 << 24}
"""Values that an update computes at a time: on a CPU as many as stay in a core's cache between its operations,
on a device few beside what is there anyway."""
_LEAST_QUANTISED = 4096
"""Values of the smallest weight whose moments may be in 8 bits, as in bitsandbytes."""


class Row:
    """One seat's part of a bank. Its tensors move when the bank is rebuilt; its views are asked for anew."""

    def __init__(
        self,
        segments: Sequence[Segment],
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        optimizer: Optimizer = "adamw",
        *,
        alone: bool = False,
    ) -> None:
        """`alone`: no other will share its bank."""
        # Biases last, so that what decays is one slice; first what is quantised.
        quantises = optimizer != "adamw"
        self.segments = tuple(sorted(segments, key=lambda each: (not each.decay, quantises and not _large(each))))
        self.size = sum(segment.size for segment in segments)
        self.decayed = sum(segment.size for segment in segments if segment.decay)
        self.large = sum(segment.size for segment in segments if _large(segment))
        """Parameters whose moments may be in 8 bits."""
        self.quantised = self.large if quantises else 0
        """The first so many have theirs so."""
        self.width = -(-self.size // 64) * 64 if alone else rounded(self.size)
        self.theta, self.g = (torch.zeros(self.width, device=device, dtype=dtype) for _ in range(2))
        rest = self.width - self.quantised
        self.m, self.v = (torch.zeros(rest, device=device, dtype=dtype) for _ in range(2))
        """Of the others."""
        self.eight_bits = None
        if self.quantised:
            from tuners.engine.eight_bits import EightBits  # most seats need no bitsandbytes

            # theta's: paged memory wants to know which of several devices.
            self.eight_bits = EightBits(self.quantised, self.theta.device, paged=optimizer == "paged_adamw_8bit")
        self.step = 0
        """Updates done."""
        self.shared = False
        """Whether its values lie among other rows'."""

    @property
    def moments(self) -> Mapping[str, Tensor]:
        """AdamW's, where they lie."""
        used = self.size - self.quantised
        return {"m": self.m[:used], "v": self.v[:used], **(self.eight_bits.tensors if self.eight_bits else {})}

    def views(self, values: Tensor) -> dict[str, Tensor]:
        """Of theta or g: each segment by its name."""
        found, start = {}, 0
        for segment in self.segments:
            found[segment.name] = values[start : start + segment.size].view(segment.shape)
            start += segment.size
        return found

    def leave_bank(self) -> None:
        """Take the values along; the bank's memory may go."""
        if not self.shared:
            return
        self.shared = False
        self.theta, self.m, self.v, self.g = (x.clone() for x in (self.theta, self.m, self.v, self.g))


def _large(segment: Segment) -> bool:
    return segment.decay and segment.size >= _LEAST_QUANTISED


def rounded(size: int) -> int:
    """The width of a bank for rows of `size`: at most a quarter more, and a multiple of 64."""
    quarter = max(64, 1 << max(0, (size - 1).bit_length() - 3))
    return -(-size // quarter) * quarter


@dataclass(frozen=True)
class Update:
    """What an update needs to know of a row."""

    learning_rate: float
    weight_decay: float
    clip_norm: float


class Bank:
    """Rows of one shape in one piece of memory: theta, g [S, P] and m, v [S, R]. Moments in 8 bits stay with a row."""

    def __init__(self, rows: Sequence[Row]) -> None:
        assert len({_shape(row) for row in rows}) == 1
        self.rows = tuple(rows)
        # A row alone stays where it is: it may be a whole model.
        join = torch.stack if len(rows) > 1 else (lambda alone: alone[0][None])
        self._theta, self._m, self._v, self._g = (
            join([getattr(row, name) for row in rows]) for name in ("theta", "m", "v", "g")
        )
        self._zero = False
        """Whether the gradients are known to be."""
        if len(rows) > 1:
            for index, row in enumerate(rows):
                row.theta, row.m, row.v, row.g = self._theta[index], self._m[index], self._v[index], self._g[index]
                row.shared = True

    @property
    def gradients(self) -> Tensor:
        """[S, P]"""
        return self._g

    def zero_gradients(self) -> None:
        """Before a step; an update has left them so."""
        if not self._zero:
            self._g.zero_()
        self._zero = False

    def norms(self) -> list[float]:
        """[S] L2 norms of the gradients."""
        values: list[float] = torch.linalg.vector_norm(self._g, dim=1).tolist()
        return values

    def update(self, norms: Sequence[float], updates: Sequence[Update]) -> None:
        """Clip by `norms` and do one step of AdamW, each row with its own numbers; as torch.optim.AdamW does it.

        The gradients are zero afterwards: a step adds to them, and here they are in the cache.
        """
        clips = [min(1.0, u.clip_norm / (norm + 1e-6)) for norm, u in zip(norms, updates, strict=True)]
        for row, update, clip in zip(self.rows, updates, clips, strict=True):
            row.step += 1
            if row.eight_bits:
                _update_quantised(row, row.eight_bits, update, clip)
        if self._g.device.type == "cpu":
            for row, update, clip in zip(self.rows, updates, clips, strict=True):
                _update_row(row, update, clip)
        else:
            self._update_together(updates, clips)
        self._zero = True

    def _update_together(self, updates: Sequence[Update], clips: Sequence[float]) -> None:
        """What is not quantised of all rows: few kernels, however many rows."""
        quantised = self.rows[0].quantised
        for row, update in zip(self.rows, updates, strict=True):
            if update.weight_decay:
                row.theta[quantised : row.decayed].mul_(1 - update.learning_rate * update.weight_decay)
        factors = self._column(clips)
        roots = self._column((1 - _BETA2**row.step) ** 0.5 for row in self.rows)
        rates = self._column(u.learning_rate / (1 - _BETA1**r.step) for r, u in zip(self.rows, updates, strict=True))
        block = max(64, _BLOCK[self._g.device.type] // len(self.rows))
        pieces = (x.split(block, 1) for x in (self._theta[:, quantised:], self._g[:, quantised:], self._m, self._v))
        for theta, g, m, v in zip(*pieces, strict=True):
            m.lerp_(g.mul_(factors), 1 - _BETA1)
            v.mul_(_BETA2).addcmul_(g, g, value=1 - _BETA2)
            root = v.sqrt().div_(roots).add_(_EPSILON)
            theta.sub_(torch.div(m, root, out=root).mul_(rates))
            g.zero_()

    def _column(self, values: Iterable[float]) -> Tensor:
        """[S, 1]"""
        return torch.tensor(list(values), dtype=torch.float64).to(self._g)[:, None]


def _update_row(row: Row, update: Update, clip: float) -> None:
    """What is not quantised of one row, in torch's own kernel: a pass over each, where theirs one by one are eleven."""
    step, first = torch.tensor(float(row.step)), row.quantised
    for start, end, decay in ((first, row.decayed, update.weight_decay), (row.decayed, row.size, 0.0)):
        for low in range(start, end, _BLOCK["cpu"]):
            high = min(end, low + _BLOCK["cpu"])
            g = row.g[low:high]
            if clip != 1:
                g.mul_(clip)
            torch._fused_adamw_(
                [row.theta[low:high]],
                [g],
                [row.m[low - first : high - first]],
                [row.v[low - first : high - first]],
                [],
                [step],
                lr=update.learning_rate,
                beta1=_BETA1,
                beta2=_BETA2,
                weight_decay=decay,
                eps=_EPSILON,
                amsgrad=False,
                maximize=False,
            )
            g.zero_()


def _update_quantised(row: Row, eight_bits: EightBits, update: Update, clip: float) -> None:
    """What bitsandbytes updates of one row."""
    theta, g = row.theta[: row.quantised], row.g[: row.quantised]
    if update.weight_decay:
        theta.mul_(1 - update.learning_rate * update.weight_decay)
    eight_bits.update(
        theta,
        g.mul_(clip),
        step=row.step,
        learning_rate=update.learning_rate,
        betas=(_BETA1, _BETA2),
        eps=_EPSILON,
    )
    g.zero_()


def sum_gradients(banks: Sequence[Bank], group: Group) -> None:
    """Over all workers, in one all-reduce for all seats."""
    if group.size == 1:
        return
    parts = [bank.gradients.view(-1) for bank in banks]
    whole = parts[0] if len(parts) == 1 else torch.cat(parts)
    group.sum(whole)
    if len(parts) > 1:
        for part, values in zip(parts, torch.split(whole, [len(part) for part in parts]), strict=True):
            part.copy_(values)


def gather(rows: Iterable[Row]) -> tuple[Bank, ...]:
    """The fewest banks for these rows, in their order."""
    by_shape: dict[tuple[int, int], list[Row]] = {}
    for row in rows:
        by_shape.setdefault(_shape(row), []).append(row)
    return tuple(Bank(group) for group in by_shape.values())


def _shape(row: Row) -> tuple[int, int]:
    return row.width, row.quantised
