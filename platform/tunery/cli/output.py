"""What commands print, in one style: results on stdout, progress and errors on stderr.

With `-o json` stdout holds exactly one JSON document, also when the command fails:
`{"error": {"type": ..., "message": ..., "mistakes": [{"file", "line", "column", "message"}]}}`.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum

import typer
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from tunery.errors import ConflictError, InputError, NotFoundError, SpecError, TuneryError, UnreachableError
from tunery.home import Home

INTERRUPTED = 130
"""Exit code after Ctrl-C."""
FAULT = TuneryError.exit_code


class Format(StrEnum):
    """How a command's result is printed."""

    TABLE = "table"
    JSON = "json"


class Panel(StrEnum):
    """The groups of the help, in its order."""

    SPECS = "Specs"
    RUNS = "Runs"
    MODELS = "Models"
    MACHINE = "This machine"
    KUBERNETES = "Kubernetes"


def stdout() -> Console:
    """For results. Made on use, so that a redirected sys.stdout is honoured."""
    # No markup: a name or a message with brackets is printed as it is.
    return Console(highlight=False, markup=False, emoji=False)


def stderr() -> Console:
    """For progress, notes and errors: also the console to give to a live display."""
    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def note(message: str) -> None:
    """A line of progress or a remark, on stderr."""
    stderr().print(Text(message), soft_wrap=True)


def table(*columns: str, title: str = "", numbers: Sequence[str] = ()) -> Table:
    """An empty table in the house style. `numbers` names the columns to be set flush right."""
    made = Table(title=title or None, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in columns:
        made.add_column(column, justify="right" if column in numbers else "left", header_style="bold cyan")
    return made


def count_of(number: int, one: str, many: str = "") -> str:
    """`1 trial`, `2 trials`, `2 studies`."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def emit(
    output: Format,
    document: object,
    *renderables: RenderableType,
    next_steps: Sequence[str] = (),
) -> None:
    """Print a command's result, once: the document with `-o json`, the renderables and hints otherwise."""
    if output is Format.JSON:
        print(to_json(document))
        return
    console = stdout()
    for renderable in renderables:
        console.print(renderable)
    for position, step in enumerate(next_steps):
        line = Text.assemble(("next: " if position == 0 else "      ", "dim"), step)
        console.print(line, soft_wrap=True)


def to_json(document: object) -> str:
    """JSON for people and programs: indented, keys in their given order, no NaN (null instead)."""
    return json.dumps(_plain(document), indent=2, ensure_ascii=False, allow_nan=False)


def _plain(value: object) -> object:
    if dump := getattr(value, "model_dump", None):  # pydantic is not imported for the help's sake
        value = dump(mode="json")
    match value:
        case Mapping():
            return {str(key): _plain(item) for key, item in value.items()}
        case str() | int() | None:
            return value
        case float():
            return value if value == value and abs(value) != float("inf") else None
        case Sequence() | set() | frozenset():
            return [_plain(item) for item in value]
        case _:
            return str(value)


def asks_for_json(argv: Sequence[str]) -> bool:
    """Whether `-o json` stands on the command line: known before parsing, because parsing can fail too."""
    words = list(argv[: list(argv).index("--")] if "--" in argv else argv)
    values = [after for word, after in itertools.pairwise(words) if word in ("-o", "--output")]
    values += [word.removeprefix("--output=") for word in words if word.startswith("--output=")]
    values += [word.removeprefix("-o") for word in words if word.startswith("-o") and word != "-o"]
    return Format.JSON in values


@contextlib.contextmanager
def only_stderr() -> Iterator[None]:
    """Send everything written to stdout to stderr meanwhile, by libraries and child processes too."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def interrupted() -> int:
    """Say so; the exit code."""
    note("interrupted")
    return INTERRUPTED


def failed(error: Exception, *, as_json: bool) -> int:
    """Print an error on stderr (with `as_json` as a document on stdout too); the exit code."""
    match error:
        case SpecError():
            # One mistake a line, beginning with its place: terminals and editors make that a link.
            for mistake in error.mistakes:
                note(str(mistake))
            message = f"{count_of(len(error.mistakes), 'mistake')} in the spec; nothing was contacted"
            code = error.exit_code
        case TuneryError():
            message, code = str(error), error.exit_code
        case typer.TyperException():
            message, code = error.format_message(), error.exit_code
            if not message:  # no arguments: the help was printed, and that is the answer
                return code
        case typer.Abort():
            return interrupted()
        case _ if (known := _library_code(error)) is not None:
            message, code = str(error), known
        case _:
            message, code = _crash_message(error), FAULT
    stderr().print(Text.assemble(("error: ", "bold red"), message), soft_wrap=True)
    if as_json:
        print(to_json({"error": _describe(error, message)}))
    return code


def _library_code(error: Exception) -> int | None:
    """The exit code of an error of `storage` or `tuners`, which know nothing of tunery; None: it is neither."""
    from storage import errors as storage
    from tuners.errors import TunerError

    match error:
        case storage.NotRegisteredError() | storage.NotFetchedError() | storage.NotOnHubError():
            return NotFoundError.exit_code
        case storage.ChampionMovedError():
            return ConflictError.exit_code
        case storage.RegistryUnreachableError() | storage.HubUnreachableError() | storage.StoreUnreachableError():
            return UnreachableError.exit_code
        case storage.StorageError() | TunerError():
            return InputError.exit_code
        case _:
            return None


def _describe(error: Exception, message: str) -> dict[str, object]:
    mistakes = error.mistakes if isinstance(error, SpecError) else ()
    return {
        "type": type(error).__name__,
        "message": message,
        "mistakes": [{"file": m.file, "line": m.line, "column": m.column, "message": m.message} for m in mistakes],
    }


def _crash_message(error: Exception) -> str:
    text = "".join(traceback.format_exception(error))
    logs = Home.from_environment().root / "logs"
    path = logs / f"crash-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    summary = f"{type(error).__name__}: {error}".strip().rstrip(":")
    try:
        logs.mkdir(parents=True, exist_ok=True)
        path.write_text(f"argv: {sys.argv}\n{text}", encoding="utf-8")
    except OSError as unwritable:
        # Nowhere to put it: better a long message than a lost traceback.
        return f"{summary} (the traceback could not be written to {path}: {unwritable})\n{text}"
    return f"{summary}\nthis is a fault of tunery; the full traceback is in {path}"
