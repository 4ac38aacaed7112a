"""How a number, a time, a status or a draw is written, everywhere alike."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table
from rich.text import Text

from tunery.runs import FINAL, RunState, TrialState, Value

# status -> (mark, style). Pruned is no misfortune: it is what the pruner is for.
MARKS: Mapping[str, tuple[str, str]] = {
    "waiting": ("·", "dim"),
    "starting": ("●", "cyan"),
    "running": ("●", "cyan"),
    "finished": ("✓", "green"),
    "pruned": ("–", "dim"),
    "failed": ("✗", "red"),
    "stopped": ("■", "yellow"),
    "interrupted": ("■", "yellow"),
}


def status(name: str) -> Text:
    """A status with its mark: the word alone says it too, where there are no colours."""
    mark, style = MARKS[name]
    return Text(f"{mark} {name}", style)


def number(value: float | None) -> str:
    """A metric: four decimals, and a power of ten only where they would say nothing."""
    if value is None:
        return "–"
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.4f}" if abs(value) < 1000 else f"{value:.1f}"
    return f"{value:.2e}"


def setting(value: Value) -> str:
    """A value of a configuration: a learning rate as 2.9e-04, a flag as in YAML."""
    match value:
        case bool() | None:
            return {True: "true", False: "false", None: "null"}[value]
        case float():
            return f"{value:.2g}" if 1e-3 <= abs(value) < 1e5 or value == 0 else f"{value:.1e}"
        case _:
            return str(value)


def draw(config: Mapping[str, Value]) -> str:
    """A draw in one line: `rank 8, learning_rate 3.0e-04`. Paths are cut to what tells them apart."""
    names = short_names(tuple(config))
    return ", ".join(f"{names[path]} {setting(value)}" for path, value in config.items())


def short_names(paths: tuple[str, ...]) -> dict[str, str]:
    """Path -> its last part, or the whole path where two end alike."""
    last = [path.rpartition(".")[2] for path in paths]
    return {path: name if last.count(name) == 1 else path for path, name in zip(paths, last, strict=True)}


def rate(per_second: float | None) -> str:
    """Examples a second, in two digits at least; empty before they are known."""
    if per_second is None:
        return ""
    return f"{per_second:,.0f}" if per_second >= 9.5 else f"{per_second:.2g}"


def duration(seconds: float) -> str:
    """`0:42`, `12:05`, `3:07:00`, `2d 4:00:00`; never negative."""
    whole = max(0, round(seconds))
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    clock = f"{hour}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
    return f"{days}d {clock}" if days else clock


def ago(seconds: float) -> str:
    """`42 s ago`, `12 min ago`, `3 h ago`, `2 d ago`."""
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit} ago"
    return f"{max(0.0, seconds):.0f} s ago"


def cut(text: str, style: str) -> Text:
    """A text that gives way where the line is too short, rather than to wrap."""
    return Text(text, style, no_wrap=True, overflow="ellipsis")


def count(amount: int, noun: str) -> str:
    """`1 trial`, `6 trials`, `2 studies`."""
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{amount} {noun if amount == 1 else plural}"


def epoch(trial: TrialState) -> str:
    """`1.5/3`; empty before it has begun."""
    return f"{trial.epoch:.1f}".removesuffix(".0") + f"/{trial.epochs}" if trial.epochs else ""


def planned(state: RunState) -> int:
    """Trials of the whole run."""
    return sum(max(study.planned, len(study.trials)) for study in state.studies)


def ended(state: RunState) -> int:
    """Trials that have ended, however that was; one that was stopped has not: it may go on."""
    return sum(trial.status in FINAL for study in state.studies for trial in study.trials)


def first_line(text: str) -> str:
    """Of an error that has several."""
    return text.strip().partition("\n")[0]


def table(*columns: str, numbers: tuple[str, ...] = ()) -> Table:
    """An empty table without lines. A column named in `numbers` is set flush right."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        made.add_column(column, justify="right" if column in numbers else "left", no_wrap=True)
    return made
