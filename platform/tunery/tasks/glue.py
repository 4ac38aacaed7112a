"""The nine tasks of GLUE (Wang et al. 2018, arXiv 1804.07461): the official columns, label order and metrics.

`tokens_per_example` was measured with BERT's uncased tokenizer (MiniLM's) on the train splits, cut at 128: cola, sst2,
stsb and wnli on the whole of it; mnli, qnli (9,999 rows each) and qqp (20,000 rows) on a part. mrpc and rte are
estimates from the published mean lengths. `defaults` are the epochs and batch sizes commonly published for adapters on
these tasks (for wnli those of run_glue); the learning rate is the tuning method's business. The `examples` are our own.
"""

from __future__ import annotations

from collections.abc import Mapping

from tunery.tasks.task import EvalSplit, Example, HubRef, Task, Value

_ENTAILED = ("entailment", "not_entailment")


def _schedule(epochs: int, batch_size: int) -> Mapping[str, Value]:
    return {"train.epochs": epochs, "train.batch_size": batch_size}


def _glue(
    name: str,
    title: str,
    columns: tuple[str, ...],
    labels: tuple[str, ...],
    *,
    metrics: tuple[str, ...],
    objective: tuple[str, ...],
    defaults: Mapping[str, Value],
    examples: tuple[Example, ...],
    rows: tuple[int, int],
    tokens: float,
) -> Task:
    return Task(
        name=name,
        title=title,
        kind="classification" if labels else "regression",
        text=columns[0],
        text_pair=columns[1] if len(columns) > 1 else None,
        label="label",
        labels=labels,
        eval_splits=(EvalSplit("validation", metrics),),
        objective=objective,
        hub=HubRef("nyu-mll/glue", name),
        folder=name,
        defaults=defaults,
        examples=examples,
        rows={"train": rows[0], "validation": rows[1]},
        tokens_per_example=tokens,
    )


_MNLI = Task(
    name="mnli",
    title="Does the premise entail the hypothesis, contradict it, or neither? (MNLI)",
    kind="classification",
    text="premise",
    text_pair="hypothesis",
    label="label",
    labels=("entailment", "neutral", "contradiction"),
    eval_splits=(
        EvalSplit("validation_matched", ("accuracy",)),
        EvalSplit("validation_mismatched", ("accuracy_mm",), optional=True),
    ),
    # The mismatched set may be absent, and an objective must mean the same wherever it is computed.
    objective=("accuracy",),
    hub=HubRef("nyu-mll/glue", "mnli"),
    folder="mnli",
    defaults=_schedule(3, 32),
    examples=(
        Example("A man is playing a guitar on stage.", "Someone is making music.", "entailment"),
        Example("A man is playing a guitar on stage.", "The man has played for many years.", "neutral"),
        Example("A man is playing a guitar on stage.", "The stage is empty.", "contradiction"),
        Example("Both shops were closed because of the snow.", "The snow kept the shops shut.", "entailment"),
        Example("Both shops were closed because of the snow.", "The shops sell winter coats.", "neutral"),
        Example("Both shops were closed because of the snow.", "One of the shops stayed open.", "contradiction"),
    ),
    rows={"train": 392_702, "validation_matched": 9_815, "validation_mismatched": 9_832},
    tokens_per_example=40.1,
)

TASKS = (
    _glue(
        "cola",
        "Is this English sentence acceptable? (CoLA)",
        ("sentence",),
        ("unacceptable", "acceptable"),
        metrics=("mcc", "accuracy", "f1", "precision", "recall"),
        objective=("mcc",),
        defaults=_schedule(5, 16),
        examples=(
            Example("The children were taught by Maria.", None, "acceptable"),
            Example("The children was taught by Maria.", None, "unacceptable"),
            Example("Whom did you invite to dinner?", None, "acceptable"),
            Example("Whom did you invite the neighbours to dinner?", None, "unacceptable"),
            Example("It seems that nobody has locked the door.", None, "acceptable"),
            Example("It seems nobody to have the door locked that.", None, "unacceptable"),
        ),
        rows=(8_551, 1_043),
        tokens=11.3,
    ),
    _glue(
        "sst2",
        "Is this film review positive? (SST-2)",
        ("sentence",),
        ("negative", "positive"),
        metrics=("accuracy",),
        objective=("accuracy",),
        defaults=_schedule(3, 32),
        examples=(
            Example("a warm and funny film", None, "positive"),
            Example("two hours that feel like ten", None, "negative"),
            Example("the two leads carry every scene with charm", None, "positive"),
            Example("a script that mistakes noise for drama", None, "negative"),
            Example("you leave the cinema humming", None, "positive"),
            Example("not even the music can save it", None, "negative"),
        ),
        rows=(67_349, 872),
        tokens=13.3,
    ),
    _glue(
        "mrpc",
        "Do the two sentences mean the same? (MRPC)",
        ("sentence1", "sentence2"),
        ("not_equivalent", "equivalent"),
        metrics=("accuracy", "f1"),
        objective=("accuracy", "f1"),
        defaults=_schedule(5, 16),
        examples=(
            Example("The company said profits rose in May.", "Profits went up in May, the company said.", "equivalent"),
            Example(
                "The company said profits rose in May.",
                "The company said in May that it would hire 200 people.",
                "not_equivalent",
            ),
            Example(
                "Two hikers were found unharmed on Sunday evening.",
                "On Sunday evening rescuers found the two hikers safe and well.",
                "equivalent",
            ),
            Example(
                "The court rejected the appeal on Tuesday.",
                "The court will hear the appeal on Tuesday.",
                "not_equivalent",
            ),
        ),
        rows=(3_668, 408),
        tokens=53.0,
    ),
    _glue(
        "stsb",
        "How alike in meaning are the two sentences, from 0 to 5? (STS-B)",
        ("sentence1", "sentence2"),
        (),
        metrics=("pearson", "spearman"),
        objective=("pearson", "spearman"),
        defaults=_schedule(5, 16),
        examples=(
            Example("A dog runs across a field.", "A dog is running through a field.", 4.8),
            Example("A woman is slicing an onion.", "A woman is cutting vegetables.", 3.5),
            Example("A boy plays the violin.", "A girl plays the piano.", 2.0),
            Example("A train is leaving the station.", "Two men are painting a fence.", 0.0),
        ),
        rows=(5_749, 1_500),
        tokens=27.8,
    ),
    _glue(
        "qqp",
        "Do the two questions ask the same? (QQP)",
        ("question1", "question2"),
        ("not_duplicate", "duplicate"),
        metrics=("accuracy", "f1"),
        objective=("accuracy", "f1"),
        defaults=_schedule(3, 32),
        examples=(
            Example("How do I learn to swim?", "What is the best way to learn swimming?", "duplicate"),
            Example("How do I learn to swim?", "How long is a swimming pool?", "not_duplicate"),
            Example("Why is the sky blue?", "What makes the sky look blue?", "duplicate"),
            Example("Which laptop should a student buy?", "Which bag fits a student's laptop?", "not_duplicate"),
        ),
        rows=(363_846, 40_430),
        tokens=30.8,
    ),
    _MNLI,
    _glue(
        "qnli",
        "Does the sentence hold the answer to the question? (QNLI)",
        ("question", "sentence"),
        _ENTAILED,
        metrics=("accuracy",),
        objective=("accuracy",),
        defaults=_schedule(3, 32),
        examples=(
            Example("When was the bridge opened?", "The bridge was opened to traffic in 1932.", "entailment"),
            Example(
                "When was the bridge opened?", "The bridge is painted grey and carries six lanes.", "not_entailment"
            ),
            Example(
                "Who wrote the town's first newspaper?",
                "Anna Berg wrote and printed the town's first newspaper herself.",
                "entailment",
            ),
            Example("How deep is the lake?", "The lake is known for its trout and its cold water.", "not_entailment"),
        ),
        rows=(104_743, 5_463),
        tokens=49.2,
    ),
    _glue(
        "rte",
        "Does the first sentence entail the second? (RTE)",
        ("sentence1", "sentence2"),
        _ENTAILED,
        metrics=("accuracy",),
        objective=("accuracy",),
        defaults=_schedule(5, 16),
        examples=(
            Example("The museum in Oslo reopened on Monday.", "There is a museum in Oslo.", "entailment"),
            Example("The museum in Oslo reopened on Monday.", "The museum in Oslo closed on Monday.", "not_entailment"),
            Example("Rain stopped the match after twenty minutes.", "The match was interrupted by rain.", "entailment"),
            Example("Rain stopped the match after twenty minutes.", "The home team won the match.", "not_entailment"),
        ),
        rows=(2_490, 277),
        tokens=70.0,
    ),
    _glue(
        "wnli",
        "Is the second sentence true if the pronoun of the first means what it says? (WNLI)",
        ("sentence1", "sentence2"),
        ("not_entailment", "entailment"),
        metrics=("accuracy",),
        objective=("accuracy",),
        defaults=_schedule(5, 32),
        examples=(
            Example("The cup did not fit in the bag because it was too big.", "The cup was too big.", "entailment"),
            Example("The cup did not fit in the bag because it was too big.", "The bag was too big.", "not_entailment"),
            Example(
                "The coach praised the goalkeeper because he had saved the match.",
                "The goalkeeper had saved the match.",
                "entailment",
            ),
            Example(
                "The coach praised the goalkeeper because he had saved the match.",
                "The coach had saved the match.",
                "not_entailment",
            ),
        ),
        rows=(635, 71),
        tokens=37.1,
    ),
)
