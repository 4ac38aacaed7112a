"""How full a pack's places are, and how soon one that was left is taken again."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field


@dataclass
class Places:
    """One pack's. What counts lies between the first seat that leaves and the last that comes: before and after it
    there are too few trials to fill the places."""

    capacity: int
    clock: Callable[[], float]
    """Seconds."""
    refills_s: list[float] = field(default_factory=list)
    """From a seat's leaving to another's coming."""
    refills_steps: list[int] = field(default_factory=list)
    """Steps that the pack made meanwhile."""
    _free: deque[tuple[float, int]] = field(default_factory=deque)
    _step: int = 0
    _begun: bool = False
    _running: list[int] = field(default_factory=lambda: [0, 0])
    _counted: tuple[int, int] = (0, 0)

    def left(self) -> None:
        self._begun = True
        self._free.append((self.clock(), self._step))

    def taken(self) -> None:
        if self._free:
            since, step = self._free.popleft()
            self.refills_s.append(self.clock() - since)
            self.refills_steps.append(self._step - step)
        self._counted = (self._running[0], self._running[1])

    def trained(self, seats: int) -> None:
        """The pack has made a step with so many seats."""
        self._step += 1
        if self._begun:
            self._running[0] += 1
            self._running[1] += seats

    def result(self) -> Refills:
        steps, seats = self._counted
        return Refills(steps * self.capacity, seats, tuple(self.refills_s), tuple(self.refills_steps))


@dataclass(frozen=True)
class Refills:
    """Of one pack, or of several together."""

    places: int
    """Summed over steps."""
    seats: int
    """In them, summed over steps."""
    seconds: tuple[float, ...]
    steps: tuple[int, ...]

    @classmethod
    def together(cls, packs: Sequence[Refills]) -> Refills:
        return cls(
            sum(pack.places for pack in packs),
            sum(pack.seats for pack in packs),
            tuple(value for pack in packs for value in pack.seconds),
            tuple(value for pack in packs for value in pack.steps),
        )

    @property
    def filled(self) -> float:
        return self.seats / max(1, self.places)

    def within(self, steps: int) -> float:
        """Share of the refills that came before the pack had made more than so many steps."""
        return sum(value <= steps for value in self.steps) / max(1, len(self.steps))

    def told(self) -> str:
        tenths = statistics.quantiles(self.seconds, n=10)
        return (
            f"places filled {self.filled:.1%}; {len(self.seconds)} refills, {self.within(0):.0%} before the next step, "
            f"{self.within(1):.0%} within one; median {tenths[4]:.2f} s, 90% within {tenths[8]:.2f} s"
        )
