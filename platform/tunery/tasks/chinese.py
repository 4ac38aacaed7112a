"""Chinese tasks: the sentiment of reviews (ChnSentiCorp), and answers to patients' questions.

`tokens_per_example` was measured with the multilingual MiniLM's tokenizer, cut at 128: of ChnSentiCorp's train split,
and of 14,424 questions with their answers. The `examples` are our own.
"""

from __future__ import annotations

from tunery.tasks.task import EvalSplit, Example, HubRef, Task

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
        examples=(
            Example("房间很干净，服务也好，下次还会来。", None, "正面"),
            Example("早餐难吃，隔音又差，不推荐。", None, "负面"),
            Example("书的内容很实用，讲得清楚，送货也快。", None, "正面"),
            Example("电脑用了三天就死机，客服也不理人。", None, "负面"),
            Example("位置方便，离地铁站走路五分钟，性价比很高。", None, "正面"),
            Example("翻译错误太多，看不下去，后悔买了。", None, "负面"),
        ),
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
        examples=(
            Example(
                "感冒了可以吃退烧药吗？",
                None,
                "体温超过38.5℃或明显不适时，可以按说明服用退烧药，同时多喝水、多休息；发烧超过三天请及时就医。",
            ),
            Example(
                "高血压患者平时要注意什么？",
                None,
                "少盐饮食，控制体重，适量运动，戒烟限酒，按医嘱服药，并定期测量血压。",
            ),
            Example(
                "晚上总是睡不着怎么办？",
                None,
                "作息要规律，睡前少用手机，下午以后不喝咖啡和浓茶；如果持续数周，建议到医院就诊。",
            ),
            Example(
                "手指被刀划了一个小口子，怎么处理？",
                None,
                "先用清水冲洗伤口，压迫止血，再消毒包扎；伤口较深或由生锈的刀造成时，应到医院处理并咨询是否打破伤风针。",
            ),
        ),
        rows={"validation": 500},  # held out; who has the rows knows how many there are
        tokens_per_example=118.0,
        language="zh",
    ),
)
