"""The ranges of a search space. Pure data: `tunery.cluster.draws` turns them into Optuna's distributions.

In a spec a range is a mapping with one key, its kind:

    tuner.rank:           {choice: [4, 8, 16]}
    train.learning_rate:  {log_uniform: [5.0e-5, 5.0e-4]}
    tuner.dropout:        {uniform: [0.0, 0.2]}
    train.epochs:         {int_uniform: [1, 10]}
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from tuners.config import Frozen

Value = str | int | float | bool | None
"""What a range draws, and what a spec's field can be overridden with."""


class Choice(Frozen):
    """One of the listed values, without an order between them."""

    choice: tuple[Value, ...] = Field(min_length=1, max_length=1000)

    @field_validator("choice")
    @classmethod
    def _distinct(cls, values: tuple[Value, ...]) -> tuple[Value, ...]:
        seen: list[tuple[type, Value]] = []
        for value in values:
            if (type(value), value) in seen:
                raise ValueError(f"a choice between distinct values, got {value!r} twice")
            seen.append((type(value), value))
        return values

    def contains(self, value: object) -> bool:
        """Whether the value can be drawn."""
        # True == 1 in Python, but not in a spec.
        return any(value == known and isinstance(value, bool) == isinstance(known, bool) for known in self.choice)

    def ends(self) -> tuple[Value, ...]:
        """The values that must be allowed for every draw to be."""
        return self.choice

    def listed(self) -> Sequence[Value] | None:
        """Every value that can be drawn; None where there is no end of them."""
        return self.choice

    def describe(self) -> str:
        """For tables."""
        return "one of " + ", ".join(map(str, self.choice))


class _Between(Frozen, ABC):
    """Any value between two ends, both included."""

    @abstractmethod
    def interval(self) -> tuple[float, float]:
        """The lower end and the upper end."""

    @model_validator(mode="after")
    def _ordered(self) -> _Between:
        low, high = self.interval()
        if not low < high:
            raise ValueError(f"[lower end, upper end] with the lower one first, got [{low}, {high}]")
        return self

    def contains(self, value: object) -> bool:
        """Whether the value can be drawn."""
        low, high = self.interval()
        return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high

    def ends(self) -> tuple[Value, ...]:
        """The values that must be allowed for every draw to be."""
        return self.interval()

    def listed(self) -> Sequence[Value] | None:
        """Every value that can be drawn; None where there is no end of them."""
        return None


class Uniform(_Between):
    """A number between two ends, each as likely."""

    uniform: tuple[float, float]

    def interval(self) -> tuple[float, float]:
        return self.uniform

    def describe(self) -> str:
        """For tables."""
        return f"{self.uniform[0]:g} to {self.uniform[1]:g}"


class LogUniform(_Between):
    """A number between two positive ends, its logarithm each as likely."""

    log_uniform: tuple[float, float]

    def interval(self) -> tuple[float, float]:
        return self.log_uniform

    @model_validator(mode="after")
    def _positive(self) -> LogUniform:
        if self.log_uniform[0] <= 0:
            raise ValueError(f"two ends above 0, since it draws the logarithm, got {self.log_uniform[0]}")
        return self

    def describe(self) -> str:
        """For tables."""
        return f"{self.log_uniform[0]:g} to {self.log_uniform[1]:g} (log)"


class IntUniform(_Between):
    """A whole number between two ends, each as likely."""

    int_uniform: tuple[int, int]

    def interval(self) -> tuple[int, int]:
        return self.int_uniform

    def contains(self, value: object) -> bool:
        """Whether the value can be drawn."""
        return isinstance(value, int) and super().contains(value)

    def listed(self) -> Sequence[Value] | None:
        """Every value that can be drawn; None where there is no end of them."""
        return range(self.int_uniform[0], self.int_uniform[1] + 1)

    def describe(self) -> str:
        """For tables."""
        return f"{self.int_uniform[0]} to {self.int_uniform[1]}"


KINDS: tuple[str, ...] = ("choice", "uniform", "log_uniform", "int_uniform")


def _kind(value: Any) -> str | None:
    if isinstance(value, dict):
        found = [kind for kind in KINDS if kind in value]
        return found[0] if len(found) == 1 else None
    return next((kind for kind in KINDS if hasattr(value, kind)), None)


Range = Annotated[
    Annotated[Choice, Tag("choice")]
    | Annotated[Uniform, Tag("uniform")]
    | Annotated[LogUniform, Tag("log_uniform")]
    | Annotated[IntUniform, Tag("int_uniform")],
    Discriminator(
        _kind,
        custom_error_type="range_kind",
        custom_error_message=f"expected a range: a mapping with one of the keys {', '.join(KINDS)}",
    ),
]
"""A range of any kind."""
