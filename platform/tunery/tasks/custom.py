"""A task that a spec declares: a user's own rows, with its columns and labels named."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from pydantic import Field

from storage.prompts import columns_of
from tuners.config import Frozen
from tunery.tasks.task import EvalSplit, HubRef, Kind, Task

METRICS: Mapping[Kind, tuple[str, ...]] = {
    "classification": ("accuracy", "f1", "precision", "recall", "mcc", "auc"),
    "regression": ("pearson", "spearman"),
    "generation": ("rouge1", "rouge2", "rougeL", "bleu"),
}
"""What each kind can be measured by; all but those for two labels are the default."""
_TWO_LABELS = ("f1", "precision", "recall", "auc")
_OBJECTIVE: Mapping[Kind, tuple[str, ...]] = {
    "classification": ("accuracy",),
    "regression": ("pearson", "spearman"),
    "generation": ("rougeL",),
}
_HELD_OUT = 1000


class CustomHub(Frozen):
    """A data set on the Hugging Face hub."""

    repo: str = Field(min_length=1, max_length=200)
    config: str | None = None


class CustomTask(Frozen):
    """Columns, labels and metrics of a task of one's own."""

    kind: Kind
    title: str = Field("", max_length=200)
    text: str | None = Field(None, min_length=1)
    """Column of the text; of a generation: see `prompt`."""
    text_pair: str | None = Field(None, min_length=1)
    """Column of the second text of a task on pairs."""
    prompt: str | None = Field(None, min_length=1, max_length=20_000)
    """Of a generation, what is asked, with `{column}` where a column's text goes; `{text}` with the text's column."""
    template: str = Field("{prompt}\n", max_length=20_000)
    """Of a generation on a model without a chat format: `{prompt}` stands for what is asked; the answer follows."""
    label: str = Field("label", min_length=1)
    """Column of the label, the value or the answer."""
    labels: tuple[str, ...] = Field((), max_length=10_000)
    """Of a classification: the labels' names, in the order of their numbers; a row may hold either."""
    language: Literal["en", "zh"] = "en"
    """How generated texts are split into words, to be scored."""
    metrics: tuple[str, ...] = ()
    """All that fit by default."""
    objective: tuple[str, ...] = ()
    """The metrics whose mean is searched for: accuracy, the mean of pearson and spearman, or rougeL by default."""
    folder: str | None = Field(None, min_length=1)
    """Under `data.root`; the task's name by default."""
    hub: CustomHub | None = None
    train_split: str = Field("train", min_length=1)
    eval_split: str = Field("validation", min_length=1)
    """Where the data has no such split, rows are held out of the training split: `held_out`, a fifth at most."""
    held_out: int = Field(_HELD_OUT, ge=1, le=1_000_000_000)

    def task(self, name: str) -> Task:
        """As the catalogue's."""
        return Task(
            name=name,
            title=self.title or name,
            kind=self.kind,
            text=self.text or "",
            text_pair=self.text_pair,
            label=self.label,
            labels=self.labels,
            eval_splits=(EvalSplit(self.eval_split, self.metrics or self._metrics(), held_out=self.held_out),),
            objective=self.objective or _OBJECTIVE[self.kind],
            hub=HubRef(self.hub.repo, self.hub.config) if self.hub else None,
            folder=self.folder or name,
            train_split=self.train_split,
            prompt=self._prompt(),
            template=self.template,
            language=self.language,
        )

    def faults(self) -> Iterator[tuple[str, str]]:
        """What no field can say of itself: (field, what is wrong with it)."""
        if self.kind == "generation":
            yield from self._faults_of_prompts()
        else:
            if self.text is None:
                yield "text", f"a {self.kind} needs the column of its text"
            if self.prompt is not None:
                yield "prompt", f"a {self.kind} asks nothing: its text is a column"
        if self.kind == "classification" and len(set(self.labels)) < 2:
            yield "labels", f"a classification needs two different labels or more, got {list(self.labels)}"
        elif len(set(self.labels)) < len(self.labels):
            yield "labels", f"the labels {list(self.labels)} are not all different"
        if self.kind != "classification" and self.labels:
            yield "labels", f"a {self.kind} has no labels"
        known = self._metrics()
        for field, named in (("metrics", self.metrics), ("objective", self.objective)):
            for metric in named:
                if metric not in known:
                    why = "needs two labels" if metric in METRICS[self.kind] else f"is no metric of a {self.kind}"
                    yield field, f"{metric!r} {why}; known: {', '.join(known)}"
        for metric in self.objective or _OBJECTIVE[self.kind]:
            if self.metrics and metric in known and metric not in self.metrics:
                yield "metrics", f"the objective {metric!r} is not among them"

    def _faults_of_prompts(self) -> Iterator[tuple[str, str]]:
        if self.prompt is None and self.text is None:
            yield "prompt", "a generation needs a prompt with columns in braces, or the column of its text"
        if self.text_pair is not None:
            yield "text_pair", "a generation asks with its prompt, which may name several columns"
        try:
            columns = columns_of(self._prompt())
        except ValueError as error:
            yield "prompt", str(error)
        else:
            if self.label in columns:
                yield "prompt", f"it has the answer's column {self.label!r}: the model would be told what to say"
            elif self.prompt is not None and not columns:
                yield "prompt", "it names no column, such as {question}: the same would be asked each time"
        if self.template.count("{prompt}") != 1:
            yield "template", "it drops what is asked: expected {prompt} in it, once"
        elif "{answer}" in self.template:
            yield "template", "the answer follows the template: leave {answer} out"

    def _prompt(self) -> str:
        if self.kind != "generation":
            return ""
        return self.prompt if self.prompt is not None else "{" + (self.text or "") + "}"

    def _metrics(self) -> tuple[str, ...]:
        fit = METRICS[self.kind]
        return fit if len(self.labels) == 2 else tuple(metric for metric in fit if metric not in _TWO_LABELS)
