"""What a task is: its data, its columns, its labels, and the numbers it is judged by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Value = str | int | float | bool | None

Kind = Literal["classification", "regression", "generation"]


class Example(NamedTuple):
    """One input, and what is meant by it."""

    text: str
    text_pair: str | None
    """The second text of a task on pairs."""
    meant: str | float
    """The label's name, the value, or an answer that would do."""


@dataclass(frozen=True)
class HubRef:
    """A data set on the Hugging Face hub."""

    repo: str
    config: str | None = None


@dataclass(frozen=True)
class EvalSplit:
    """A split the task is judged on."""

    name: str
    metrics: tuple[str, ...]
    """Names as they are reported; up to the first underscore they name the formula: `accuracy_mm` is an accuracy."""
    optional: bool = False
    """Whether a data source may lack it."""
    held_out: int = 0
    """Where a data source lacks it, so many rows (a fifth of them at most) are held out of the training rows."""


@dataclass(frozen=True)
class Task:
    """One task. Everything here is known without reading the data."""

    name: str
    title: str
    """One line for tables and help."""
    kind: Kind
    text: str
    text_pair: str | None
    label: str
    """`text`, `text_pair` and `label` are column names."""
    labels: tuple[str, ...]
    """Label names in the order of their numbers, from 0; of a classification only."""
    eval_splits: tuple[EvalSplit, ...]
    objective: tuple[str, ...]
    """The metrics whose mean is the objective."""
    hub: HubRef | None = None
    folder: str = ""
    """Where its files lie under `data.root`: `<root>/<folder>/<split>.parquet` and so on."""
    train_split: str = "train"
    direction: Literal["maximise", "minimise"] = "maximise"
    defaults: Mapping[str, Value] = field(default_factory=dict)
    """Dotted `train.*` path -> value, for fields that a spec leaves out."""
    examples: tuple[Example, ...] = ()
    """A handful of inputs, made up here, to show what the task is about."""
    rows: Mapping[str, int] = field(default_factory=dict)
    """Split -> number of rows of the whole data set, where that is known."""
    tokens_per_example: float = 32.0
    """Mean over train, special tokens included, cut at 128: an estimate for plans. The module says how it was got."""
    prompt: str = ""
    """Of a generation, what is asked: `{column}` stands for a column's text. `label` is the answer's column."""
    template: str = ""
    """Of a generation, for models without a chat's format: `{prompt}` stands for what is asked; the answer follows."""
    language: Literal["en", "zh"] = "en"
    """How texts that are generated are split into words, to be scored."""
    generate: bool = False
    """Whether the project generates the data itself (`data.source: embedded`)."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """Every metric the task can report; those of an optional split may be absent."""
        return tuple(metric for split in self.eval_splits for metric in split.metrics)

    @property
    def objective_name(self) -> str:
        """The objective in a word, for tables: `mcc`, `mean(accuracy, f1)`."""
        return self.objective[0] if len(self.objective) == 1 else f"mean({', '.join(self.objective)})"
