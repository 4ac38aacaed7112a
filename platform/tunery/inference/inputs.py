"""What users hand in to be predicted: one text or two, on the command line or as JSON Lines. Loads no torch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from storage.prompts import columns_of, filled
from tunery.inference.card import AdapterCard

TEXT, TEXT2 = "text", "text2"


class BadInput(ValueError):  # noqa: N818  (it is the input that is bad; the message says why)
    """An input that cannot be predicted."""


class Line(NamedTuple):
    """One line of a file. `number` counts from 1; exactly one of `input` and `why` is there."""

    number: int
    raw: str
    input: tuple[str, str | None] | None
    why: str


@dataclass(frozen=True)
class Reader:
    """Reads inputs for one model."""

    pairs: bool | None
    """Whether its inputs are pairs; None: not known, both are taken."""
    names: tuple[tuple[str, str], ...]
    """Pairs of keys under which the texts may stand: ours, and the task's own columns."""
    prompt: str = ""
    """Of a task with answers: what is asked, with its columns in braces."""

    @classmethod
    def of(cls, card: AdapterCard) -> Reader:
        task = card.definition
        if task is None:
            return cls(None, ((TEXT, TEXT2),))
        if task.prompt:
            return cls(False, ((TEXT, TEXT2),), task.prompt)
        return cls(task.text_pair is not None, ((TEXT, TEXT2), (task.text, task.text_pair or TEXT2)))

    def checked(self, text: str, text2: str | None) -> tuple[str, str | None]:
        """The input, if it is one for this model; BadInput else."""
        if not text.strip():
            raise BadInput("the text is empty")
        if self.pairs and text2 is None:
            raise BadInput("this model compares two texts: the second one is missing")
        if self.pairs is False and text2 is not None:
            raise BadInput("this model takes one text: there is a second one")
        return text, text2

    def read(self, lines: Iterable[bytes]) -> Iterator[Line]:
        """The lines of a JSON Lines file; blank ones are passed over."""
        for number, raw in enumerate(lines, start=1):
            text = raw.decode("utf-8", errors="replace").rstrip("\r\n")
            if not text.strip():
                continue
            try:
                yield Line(number, text, self._input(json.loads(raw)), "")
            except BadInput as bad:
                yield Line(number, text, None, str(bad))
            except UnicodeDecodeError:
                yield Line(number, text, None, "not UTF-8")
            except (ValueError, RecursionError) as error:
                yield Line(number, text, None, f"not JSON: {error}")

    def _input(self, value: object) -> tuple[str, str | None]:
        if isinstance(value, str):
            return self.checked(value, None)
        if not isinstance(value, dict):
            raise BadInput(f"expected an object with {TEXT!r}, or a string; got {type(value).__name__}")
        if TEXT not in value and self.prompt:
            return self._asked(value)
        for first, second in self.names:
            if first in value:
                text, text2 = value[first], value.get(second)
                if not isinstance(text, str) or not isinstance(text2, str | None):
                    raise BadInput(f"{first!r} and {second!r} hold text; got {type(text).__name__} "
                                   f"and {type(text2).__name__}")  # fmt: skip
                return self.checked(text, text2)
        known = ", ".join(dict.fromkeys(repr(first) for first, _ in self.names))
        raise BadInput(f"no text: expected {known}; got {', '.join(map(repr, value)) or 'nothing'}")

    def _asked(self, value: dict[str, object]) -> tuple[str, str | None]:
        def text(column: str) -> tuple[str, str]:
            found = value.get(column)
            return (found, "") if isinstance(found, str) else ("", f"{column!r} holds no text")

        asked, problem = filled(self.prompt, value, text)
        if problem:
            columns = ", ".join(map(repr, columns_of(self.prompt)))
            raise BadInput(f"{problem}: expected {TEXT!r}, or the columns {columns}")
        return self.checked(asked, None)
