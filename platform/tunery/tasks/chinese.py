"""Chinese tasks: the sentiment of reviews (ChnSentiCorp), and answers to patients' questions.

`tokens_per_example` was measured with the multilingual MiniLM's tokenizer, cut at 128: of ChnSentiCorp's train split,
and of 14,424 questions with their answers. The `examples` are our own.
"""

from __future__ import annotations

from tunery.tasks.task import EvalSplit, HubRef, Task

_WRITTEN = ("rouge1", "rouge2", "rougeL", "bleu")

TASKS = (
    Task(
        name="chnsenticorp",
        title="Is this Chinese review positive? (ChnSentiCorp)",
        kind="classification",
        text="text",
        text_pair=None,
        label="label",
        labels=("负面", "正面"),
        eval_splits=(EvalSplit("validation", ("accuracy", "f1", "auc")),),
        objective=("accuracy",),
        hub=HubRef("lansinuote/ChnSentiCorp"),
        folder="chnsenticorp",
        defaults={"train.epochs": 3, "train.batch_size": 32},
        examples=(("房间很干净，服务也好，下次还会来。", None), ("早餐难吃，隔音又差，不推荐。", None)),
        rows={"train": 9_600, "validation": 1_200},
        tokens_per_example=81.7,
        language="zh",
    ),
    Task(
        name="medqa_zh",
        title="What is to be said to this patient? (questions and answers in Chinese)",
        kind="generation",
        text="question",
        text_pair=None,
        label="answer",
        labels=(),
        prompt="{instruction}\n{question}",
        template="{prompt}\n回答：",
        eval_splits=(EvalSplit("validation", _WRITTEN, held_out=500),),
        objective=("rougeL",),
        folder="medqa",
        defaults={"train.epochs": 3, "train.batch_size": 16, "train.max_length": 256},
        examples=(("感冒了可以吃退烧药吗？", None), ("高血压患者平时要注意什么？", None)),
        rows={"train": 13_924, "validation": 500},
        tokens_per_example=118.0,
        language="zh",
    ),
)
