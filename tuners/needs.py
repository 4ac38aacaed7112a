"""What a pack takes in memory, in its parts, and which settings would take less. Arithmetic: loads no torch.

The engine fills a `Need` with what it has measured, `platform plan` with estimates (`tunery.forecast`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

# Those of the CPU were found with `python -m benchmarks.memory`; those of a device are guesses.
SLACK = {"cpu": 1.35, "cuda": 1.1}
"""What an allocator takes over what it is asked for: freed pieces do not fit what is asked for next."""
SLACK_OF_DIFFERING = {"cpu": 1.65, "cuda": 1.1}
"""The same where forwards differ in size: those of a step that takes several, or those of steps that differ by more
than the next."""
DIFFERING = 64 << 20
"""Bytes that a large step keeps over an average one, above which the holes that a smaller one leaves are too small."""
LIBRARIES = {"cpu": 64 << 20, "cuda": 0}
"""What kernels take when they first run."""
ROW_TENSORS = 4
"""Values for each trained parameter: the engine's theta, m, v, g."""
QUANTISED_ROW_TENSORS = 2
"""The same where AdamW's moments are in 8 bits, beside those: theta and g."""
JOINING_TENSORS = {"cpu": (4, 2), "cuda": (0, 0)}
"""More of both where rows are put together: theta, m, v and g are then there twice, and on a CPU what is freed stays
with the process."""
QUANTISED_MOMENTS = 2 * (1 + 4 / 256)
"""Bytes a parameter of two moments in 8 bits, with a float32 scale for each block of 256."""
MOST_TOKENS = {"cpu": 2048, "cuda": 8192}
"""Of one forward: a CPU's products are no faster with more, and its caches and allocator worse off."""
ACTIVATIONS = 1 << 30
"""Bytes that the activations of one forward may take where nobody gives a limit."""
PROBE_TOKENS = 512
"""Of the forward on which a seat's kind is measured; no forward is bounded below it for its activations alone."""
NF4_BYTES = 0.5 + 1 / 64
"""Of a weight in 4 bits, with the scale of its block of 64 where the scales are quantised too."""
LEAST_LENGTH = 16
"""Tokens below which no shorter `max_length` is advised."""


def row_bytes(
    parameters: int, quantised: int, device: str, itemsize: int = 4, *, alone: bool = False, copied: bool = False
) -> int:
    """What a seat trains takes with gradients and moments, of which those of `quantised` parameters are in 8 bits.

    `alone`: it has a pack to itself. `copied`: forwards lay the seats' parameters beside each other.
    """
    more, more_quantised = (0, 0) if alone else JOINING_TENSORS[device]
    values = (parameters - quantised) * (ROW_TENSORS + more) + quantised * (QUANTISED_ROW_TENSORS + more_quantised)
    values += parameters if copied else 0
    return round(itemsize * values + QUANTISED_MOMENTS * quantised)


@dataclass(frozen=True)
class Need:
    """One worker of a pack, in bytes and tokens."""

    process: int
    """What it takes beside base and seats: libraries, a device's context."""
    base: int
    """Its share of the base."""
    seat: int
    """A seat's parameters, gradients and moments."""
    token: float
    """That a token of a forward keeps, with what an allocator takes over that."""
    tokens: float
    """Of a step of one seat."""
    longest: int
    """Tokens of the longest sequence: the least that a forward has."""
    forward: int
    """Most tokens of a forward."""
    max_length: int
    seats: int
    packs: int
    """Of its base: fewer would let each take more."""
    parameters: int
    """Of the base."""
    recomputed: float | None = None
    """`token` with gradient checkpointing; None: there already."""
    quantised: int | None = None
    """`base` in 4 bits; None: it is, or cannot be."""
    quantised_by: str = "tuner.method: qlora"
    adapter: int | None = None
    """`seat` where an adapter is trained in place of the base; None: it is."""
    seat_8bit: int | None = None
    """`seat` with AdamW's moments in 8 bits; None: they are."""
    rank: int | None = None
    """Of the adapters; None: not known, or none."""
    kept: int = 0
    """Of the base's states, for networks beside it."""

    @property
    def longest_forward(self) -> float:
        """Tokens of the largest forward."""
        return min(self.seats * self.tokens, max(self.forward, self.longest))

    @property
    def peak(self) -> int:
        """With forwards as large as they may be."""
        return self._with(self.longest_forward)

    @property
    def least(self) -> int:
        """With the smallest forwards: one of the longest sequence."""
        return self._with(min(self.longest, self.longest_forward))

    def _with(self, tokens: float) -> int:
        return round(self.process + self.base + self.kept + self.seats * self.seat + tokens * self.token)


@dataclass(frozen=True)
class Change:
    """Something to set otherwise."""

    what: str
    """As a spec says it, where a spec does."""
    cost: str
    """What it costs."""
    bytes: int
    """That a worker then takes at least."""
    limit: int
    """That it then may take: more where fewer packs share the memory."""


_Step = tuple[str, str, Need, int]
"""What, what it costs, what is then needed, what may then be taken."""
_Changes = Callable[[Need, int], Iterator[_Step]]


def advice(need: Need, limit: int) -> tuple[Change, ...]:
    """What would fit into `limit` bytes a worker, the cheapest first; where no one change does, several together.

    The order is that of what they cost a user: what changes nothing but how much runs at once; what takes longer; what
    changes how the base is kept, then what is trained, then what is read; another model. Empty where all fits, or
    nothing helps.
    """
    if need.peak <= limit:
        return ()
    if need.least <= limit:
        return (_smaller_forwards(need, limit),)
    alone = [[step] for change in _CHANGES for step in change(need, limit) if _fits(step)]
    found = alone or _together(need, limit)
    return tuple(map(_change, [*found, *([step] for step in _smaller_model(need, limit))]))


def _together(need: Need, limit: int) -> list[list[_Step]]:
    """Changes that fit together and not one by one: the cheapest, as many as are needed."""
    for count in range(2, len(_CHANGES) + 1):
        steps = _applied(need, limit, _CHANGES[:count])
        if steps and _fits(steps[-1]):
            chosen = list(_CHANGES[:count])
            for change in reversed(_CHANGES[: count - 1]):  # the dearest that is not needed goes first
                fewer = [each for each in chosen if each is not change]
                others = _applied(need, limit, fewer)
                if others and _fits(others[-1]):
                    chosen = fewer
            return [_applied(need, limit, chosen)]
    return []


def _applied(need: Need, limit: int, changes: Sequence[_Changes]) -> list[_Step]:
    """One after the other, each as far as it goes."""
    steps: list[_Step] = []
    for change in changes:
        needed, allowed = (steps[-1][2], steps[-1][3]) if steps else (need, limit)
        steps += list(change(needed, allowed))[-1:]
    return steps


def told(changes: Sequence[Change]) -> str:
    """One line: what would fit."""
    if not changes:
        return "nothing that can be set would fit"
    listed = "; ".join(f"{change.what} ({size(change.bytes)}; {change.cost})" for change in changes)
    return f"by estimate this would fit: {listed}"


def size(count: int) -> str:
    """Bytes for people."""
    return f"{count / (1 << 20):,.0f} MiB" if count < 10 << 30 else f"{count / (1 << 30):,.1f} GiB"


def _fits(step: _Step) -> bool:
    _, _, need, limit = step
    return need.least <= limit


def _change(steps: Sequence[_Step]) -> Change:
    _, _, need, limit = steps[-1]
    what, costs = (list(dict.fromkeys(step[place] for step in steps)) for place in (0, 1))
    return Change(" and ".join(map(str, what)), ", ".join(map(str, costs)), need.least, limit)


def _smaller_forwards(need: Need, limit: int) -> Change:
    # Not a setting: the engine does this by itself, down to one sequence.
    forward = max(need.longest, int((limit - replace(need, tokens=0).peak) / need.token))
    then = replace(need, forward=forward)
    return Change(f"forwards of {forward:,} tokens", "done by itself; steps take longer", then.peak, limit)


# Each yields what it is to be set to: the first that fits, else what takes least; nothing where it is so already.


def _fewer_seats(need: Need, limit: int) -> Iterator[_Step]:
    for seats in range(need.seats - 1, 0, -1):
        step = f"resources.seats: {seats}", "fewer trials at once", replace(need, seats=seats), limit
        if seats == 1 or _fits(step):
            yield step
            return


def _fewer_packs(need: Need, limit: int) -> Iterator[_Step]:
    for packs in range(need.packs - 1, 0, -1):
        more = limit * need.packs // packs
        step = f"resources.packs: {packs}", "fewer trials at once", replace(need, packs=packs), more
        if packs == 1 or _fits(step):
            yield step
            return


def _fewer_kept(need: Need, limit: int) -> Iterator[_Step]:
    if need.kept:
        mib = max(0, (limit - need.least + need.kept) >> 20)
        then = replace(need, kept=mib << 20)
        yield f"tuner.kept_mib: {mib}", "the base runs again on what is not kept", then, limit


def _recomputing(need: Need, limit: int) -> Iterator[_Step]:
    if need.recomputed is not None and need.recomputed < need.token:
        then = replace(need, token=need.recomputed, recomputed=None)
        yield "resources.gradient_checkpointing: true", "the base runs forward twice a step", then, limit


def _optimizer(need: Need, limit: int) -> Iterator[_Step]:
    if need.seat_8bit is not None and need.seat_8bit < need.seat:
        then = replace(need, seat=need.seat_8bit, seat_8bit=None)
        yield "train.optimizer: adamw_8bit", "AdamW's moments in 8 bits: a little less exact", then, limit


def _quantised(need: Need, limit: int) -> Iterator[_Step]:
    if need.quantised is not None and need.quantised < need.base:
        then = replace(need, base=need.quantised, quantised=None)
        yield need.quantised_by, "a base in 4 bits: slower, and a little less exact", then, limit


def _adapters(need: Need, limit: int) -> Iterator[_Step]:
    if need.adapter is not None and need.adapter < need.seat:
        then = replace(need, seat=need.adapter, adapter=None, seat_8bit=None)
        yield "tuner.method: lora", "an adapter is trained, not every weight", then, limit


def _smaller_rank(need: Need, limit: int) -> Iterator[_Step]:
    rank = need.rank or 1
    while rank > 1:
        rank //= 2
        # A seat is its adapter, nearly; its head does not shrink with the rank.
        then = replace(need, seat=round(need.seat * rank / (need.rank or 1)), rank=rank, seat_8bit=None)
        step = f"tuner.rank: {rank}", "smaller adapters", then, limit
        if rank == 1 or _fits(step):
            yield step
            return


def _shorter(need: Need, limit: int) -> Iterator[_Step]:
    length = 1 << (need.longest - 1).bit_length()
    while length > LEAST_LENGTH:
        length //= 2
        cut = min(1.0, length / need.longest)
        then = replace(need, longest=min(need.longest, length), max_length=length, tokens=need.tokens * cut)
        step = f"train.max_length: {length}", "longer inputs are cut", then, limit
        if length <= LEAST_LENGTH or _fits(step):
            yield step
            return


def _smaller_model(need: Need, limit: int) -> Iterator[_Step]:
    rest = need.least - need.base
    if need.base and rest < limit:
        most = int(need.parameters * (limit - rest) / need.base)
        then = replace(need, base=limit - rest, parameters=most)
        yield f"model.id: one of at most {_parameters(most)} parameters", "another model", then, limit


_CHANGES: tuple[_Changes, ...] = (
    _fewer_seats,
    _fewer_packs,
    _fewer_kept,
    _recomputing,
    _optimizer,
    _quantised,
    _adapters,
    _smaller_rank,
    _shorter,
)
"""The cheapest first."""


def _parameters(count: int) -> str:
    return f"{count / 1e9:.2g}B" if count >= 1e9 else f"{count / 1e6:.3g}M"
