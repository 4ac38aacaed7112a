"""What was typed before, over sessions: a file in TUNERY_HOME that only its owner reads."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from prompt_toolkit.history import History

LONGEST = 1000
"""Texts that are kept; a file may grow to twice as many before it is shortened."""
FILE = "predict_history"


class KeptHistory(History):
    """One JSON string a line, the newest last. Where it cannot be written, `problem` is told once."""

    def __init__(self, file: Path, problem: Callable[[str], None]) -> None:
        super().__init__()
        self._file = file
        self._problem = problem

    def load_history_strings(self) -> Iterable[str]:
        """The newest first."""
        try:
            lines = self._file.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            self._problem(f"what was typed before cannot be read from {self._file}: {error.strerror}")
            return []
        if len(lines) > 2 * LONGEST:
            self._shorten(lines[-LONGEST:])
        texts = []
        for line in reversed(lines[-LONGEST:]):
            with suppress(ValueError):  # half a line of a process that was killed
                text = json.loads(line)
                if isinstance(text, str):
                    texts.append(text)
        return texts

    def store_string(self, string: str) -> None:
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            with os.fdopen(descriptor, "ab") as handle:
                os.fchmod(descriptor, 0o600)
                handle.write(json.dumps(string, ensure_ascii=False).encode(errors="replace") + b"\n")
        except OSError as error:
            self._problem(f"what is typed is not kept: {self._file} cannot be written: {error.strerror}")
            self._problem = lambda _: None

    def _shorten(self, lines: list[str]) -> None:
        with suppress(OSError):
            temporary = self._file.with_name(f".{self._file.name}.{os.getpid()}")
            with os.fdopen(
                os.open(temporary, os.O_WRONLY | os.O_TRUNC | os.O_CREAT, 0o600), "w", encoding="utf-8"
            ) as handle:
                handle.writelines(f"{line}\n" for line in lines)
            temporary.replace(self._file)
