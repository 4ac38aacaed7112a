"""What users hand in to be predicted: one text or two, on the command line or as JSON Lines. Loads no torch."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO, NamedTuple

from storage.prompts import columns_of, filled
from tunery.inference.card import AdapterCard

TEXT, TEXT2 = "text", "text2"
LONGEST_LINE = 2**24
"""Bytes of a line that are read: what has no line ends is no JSON Lines, and must not fill the memory."""
_SHOWN = 1000
"""Characters that are kept of a line which is longer."""


class BadInput(ValueError):  # noqa: N818  (it is the input that is bad; the message says why)
    """An input that cannot be predicted."""


class Line(NamedTuple):
    """One line of a file. `number` counts from 1; exactly one of `input` and `why` is there."""

    number: int
    raw: str
    input: tuple[str, str | None] | None
    why: str


class Lines:
    """The lines of a stream, each with its end; of one that is too long the first `LONGEST_LINE` bytes and one more."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self.position = 0
        """Bytes that were read so far."""

    def __iter__(self) -> Iterator[bytes]:
        while line := self._readline():
            yield line
            while len(line) > LONGEST_LINE and not line.endswith(b"\n"):
                line = self._readline()  # the rest of it; empty at the end of the stream

    def _readline(self) -> bytes:
        line = self._source.readline(LONGEST_LINE + 1)
        self.position += len(line)
        return line


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
        for which, each in (("text", text), ("second text", text2)):
            if each is not None and not each.strip():
                raise BadInput(f"the {which} is empty")
            # Half a character: from an escape in JSON, or from an argument that is not UTF-8.
            if each is not None and any("\ud800" <= letter <= "\udfff" for letter in each):
                raise BadInput(f"the {which} is not valid Unicode")
        if self.pairs and text2 is None:
            raise BadInput("this model compares two texts: the second one is missing")
        if self.pairs is False and text2 is not None:
            raise BadInput("this model takes one text: there is a second one")
        return text, text2

    def read(self, lines: Iterable[bytes]) -> Iterator[Line]:
        """The lines of a JSON Lines file; blank ones are passed over."""
        for number, raw in enumerate(lines, start=1):
            if number == 1:
                raw = raw.removeprefix(codecs.BOM_UTF8)
            if not raw.strip():
                continue
            try:
                if len(raw) > LONGEST_LINE:
                    raise BadInput(f"longer than {LONGEST_LINE // 2**20} MiB: are there line ends in the file?")
                line = raw.decode()
                yield Line(number, line.rstrip("\r\n"), self._input(json.loads(line)), "")
            except BadInput as bad:
                yield Line(number, _shown(raw), None, str(bad))
            except UnicodeDecodeError:
                utf16 = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
                yield Line(number, _shown(raw), None, "not UTF-8" + (", but UTF-16" if utf16 else ""))
            except json.JSONDecodeError as error:
                why = f"not JSON ({error.msg} at column {error.colno}): {self._expected()}"
                yield Line(number, _shown(raw), None, why)
            except (ValueError, RecursionError) as error:  # a number of too many digits, brackets nested too deep
                yield Line(number, _shown(raw), None, f"not JSON: {error}")

    def _expected(self) -> str:
        second = f', "{TEXT2}": "..."' if self.pairs else ""
        return f'expected {{"{TEXT}": "..."{second}}}' + ("" if self.pairs else ', or "..."')

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


def _shown(raw: bytes) -> str:
    """A bad line, to be kept."""
    text = raw[:LONGEST_LINE].decode(errors="replace").rstrip("\r\n")
    return text if len(raw) <= LONGEST_LINE else f"{text[:_SHOWN]}..."
