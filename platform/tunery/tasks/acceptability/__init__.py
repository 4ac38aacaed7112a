"""Acceptability of English sentences, on minimal pairs that the project generates itself.

CoLA's question without CoLA's data: no network, no licence, and a dev set whose sentence frames and content words
never occur in train.
"""

from __future__ import annotations

from tunery.tasks.task import EvalSplit, Example, Task

TASKS = (
    Task(
        name="acceptability",
        title="Is this English sentence acceptable? (generated minimal pairs)",
        kind="classification",
        text="sentence",
        text_pair=None,
        label="label",
        labels=("unacceptable", "acceptable"),
        eval_splits=(EvalSplit("validation", ("mcc", "accuracy", "f1", "precision", "recall")),),
        objective=("mcc",),
        folder="acceptability",
        defaults={"train.epochs": 4, "train.batch_size": 32},
        examples=(
            Example("The book was written by John.", None, "acceptable"),
            Example("The book was written John.", None, "unacceptable"),
            Example("She gave him a present.", None, "acceptable"),
            Example("She gave he a present.", None, "unacceptable"),
            Example("I think that he is smart.", None, "acceptable"),
            Example("I think that is he smart.", None, "unacceptable"),
        ),
        rows={"train": 2000, "validation": 500},
        tokens_per_example=9.0,
        generate=True,
    ),
)


def rows(split: str, *, seed: int) -> list[tuple[str, int]]:
    """The sentences of "train" or "validation", each with 1 (acceptable) or 0, in a seeded order."""
    # Imported here: the catalogue is read by every command, and few need the sentences.
    from tunery.tasks.acceptability.generator import sentences

    return sentences(split, seed=seed)
