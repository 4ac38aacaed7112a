"""`platform predict --interactive`: a text, its answer, the next text."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tunery.cli.output import Format, note
from tunery.errors import TuneryError
from tunery.home import Home

if TYPE_CHECKING:
    from tunery.inference.inputs import Reader
    from tunery.inference.model import Model


def ask(model: Model, reader: Reader, output: Format) -> None:
    """One prediction a text until Ctrl-D; with -o json one line of JSON each. Bad input never ends it."""
    seated = _at_a_terminal()
    prompt = _terminal() if seated else _stream
    second = ", then its second text" if reader.pairs else ""
    keys = "; Ctrl-C clears the line, Ctrl-D ends" if seated else "; Ctrl-D ends"
    note(f"{model.name}: a text a line{second}{keys}")
    while True:
        try:
            text = prompt("text> ")
            if seated and not text.strip():
                note("nothing was typed: a text, then Enter; Ctrl-D ends")
                continue
            text2 = prompt("text2> ") if reader.pairs else None
        except EOFError:
            return
        except KeyboardInterrupt:
            if not seated:
                raise
            continue
        try:
            _answer(model, reader, text, text2, output)
        except KeyboardInterrupt:
            if not seated:
                raise
            note("\ninterrupted")


def _answer(model: Model, reader: Reader, text: str, text2: str | None, output: Format) -> None:
    from tunery.inference.generator import Generator

    began = time.perf_counter()
    try:
        asked = reader.checked(text, text2)
        if isinstance(model, Generator):
            answer = model.aloud(asked[0], _say if output is not Format.JSON else _nothing)
            facts: dict[str, Any] = answer.told() | {"tokens": answer.tokens}
        else:
            prediction = model(*asked)
            facts, line = prediction.told(), prediction.line
    except BrokenPipeError:
        raise
    except (ValueError, TuneryError) as bad:
        note(str(bad))
        return
    except Exception as error:  # out of memory, say: the next text may be shorter
        note(f"no answer: {type(error).__name__}: {error}")
        return
    ms = (time.perf_counter() - began) * 1000
    if output is Format.JSON:
        _say(json.dumps(facts | {"latency_ms": round(ms, 3)}, ensure_ascii=False) + "\n")
    elif isinstance(model, Generator):
        _say("\n")
        note(f"({facts['tokens']} tokens, {ms:.0f} ms, {facts['tokens'] / ms * 1000:.1f} tokens/s)")
    else:
        _say(f"{line}  ({ms:.0f} ms)\n")


def _say(words: str) -> None:
    sys.stdout.write(words)
    sys.stdout.flush()


def _nothing(_: str) -> None:
    pass


def _at_a_terminal() -> bool:
    """Whether lines can be edited: the prompt goes to stderr, since stdout is for the answers."""
    return sys.stdin.isatty() and sys.stderr.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")


def _terminal() -> Callable[[str], str]:
    """Prompts with a line that can be edited, whatever the width of its letters, and a history over sessions."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.output.vt100 import Vt100_Output

    from tunery.cli._history import FILE, KeptHistory

    history = KeptHistory(Home.from_environment().root / FILE, note)
    # Nothing is shown below the line: so the terminal need not be asked where that is.
    screen = Vt100_Output.from_pty(sys.stderr, term=os.environ.get("TERM"))
    screen.enable_cpr = False
    session: PromptSession[str] = PromptSession(history=history, output=screen, enable_suspend=True)
    return lambda words: session.prompt(words)


def _stream(words: str) -> str:
    """A line of what is piped in, or of a terminal that can do no more."""
    if sys.stdin.isatty():
        sys.stderr.write(words)
        sys.stderr.flush()
    line = sys.stdin.buffer.readline()
    if not line:
        raise EOFError
    # What is no UTF-8 becomes half characters, which the check of a text names.
    return line.decode(errors="surrogateescape").removeprefix("\ufeff").rstrip("\r\n")
