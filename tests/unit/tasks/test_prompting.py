"""How questions are put to models, and cut: with real tokenizers of both kinds."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from storage.datasets import Row
from storage.tokens import Questions
from tunery.errors import InputError
from tunery.tasks.prompting import Prompting, stop_tokens

CHAT = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}<end>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
PLAIN = "{prompt}\nAnswer:"


def tokenizer(chat: str | None = CHAT, *, begins: bool = True, ends: bool = False) -> Any:
    """A word a character."""
    letters = [chr(code) for code in range(32, 127)] + ["\n"]
    words = {
        word: number for number, word in enumerate(["[B]", "[E]", "[U]", "<user>", "<assistant>", "<end>", *letters])
    }
    backend = Tokenizer(models.WordLevel(words, unk_token="[U]"))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    backend.add_special_tokens(["[B]", "[E]", "<user>", "<assistant>", "<end>"])
    if begins or ends:
        single = f"{'[B] ' if begins else ''}$A{' [E]' if ends else ''}"
        backend.post_processor = processors.TemplateProcessing(single=single, special_tokens=[("[B]", 0), ("[E]", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="[B]", eos_token="[E]", chat_template=chat)


def questions(words: Any, length: int = 64, form: Any = "auto") -> Questions:
    return Prompting.of(words, PLAIN, form=form).questions(words, max_length=length, room=8)


@pytest.mark.parametrize(
    ("form", "text"),
    [("auto", "<user>Why?<end><assistant>"), ("chat", "<user>Why?<end><assistant>"), ("plain", "[B]Why?\nAnswer:")],
)
def test_a_prompt_and_its_answer(form: str, text: str) -> None:
    words = tokenizer()
    ids, types, sizes = questions(words, form=form).to_learn([Row("Why?", None, 0.0, "So.")])
    assert types is None
    assert words.decode(ids[0][: int(sizes[0])]).replace(" ", "") == text
    assert words.decode(ids[0][int(sizes[0]) :]).replace(" ", "") == "So.[E]"


def test_asking_gives_the_prompt_of_training() -> None:
    for form in ("chat", "plain"):
        made = questions(tokenizer(), form=form)
        ids, _, sizes = made.to_learn([Row("Why?", None, 0.0, "So.")])
        assert made.ask(["Why?"]) == [ids[0][: int(sizes[0])]]


def test_a_tokenizer_that_ends_every_text_does_not_end_a_prompt() -> None:
    words = tokenizer(chat=None, ends=True)
    ids = questions(words).ask(["Why?"])[0]
    assert words.decode(ids).replace(" ", "") == "[B]Why?\nAnswer:"


def test_what_is_too_long_is_cut_in_the_prompts_middle_and_then_at_the_answers_end() -> None:
    words = tokenizer(chat=None, begins=False)
    made = questions(words, 20)
    ids, _, sizes = made.to_learn(
        [Row("0123456789" * 3, None, 0.0, "yes!"), Row("0123", None, 0.0, "abcdefghijklmnop")]
    )
    prompt, answer = (
        words.decode(part).replace(" ", "") for part in (ids[0][: int(sizes[0])], ids[0][int(sizes[0]) :])
    )
    assert (len(ids[0]), answer) == (20, "yes![E]")
    assert prompt.startswith("0123456")
    assert prompt.endswith("Answer:")
    prompt, answer = (
        words.decode(part).replace(" ", "") for part in (ids[1][: int(sizes[1])], ids[1][int(sizes[1]) :])
    )
    assert len(ids[1]) == 20
    assert sizes[1] == 10, "a half"
    assert answer == "abcdefghij"


def test_an_evaluation_asks_as_a_user_does_however_long_the_answers_are() -> None:
    made = questions(tokenizer(chat=None, begins=False), 20)
    asked = "0123456789" * 3
    rows = [Row(asked, None, 0.0, answer) for answer in ("y", "yes!", "abcdefghijklmnopqrstuvwxyz")]
    ids, _, sizes = made.to_evaluate(rows)
    assert [row[: int(size)] for row, size in zip(ids, sizes, strict=True)] == made.ask([asked]) * 3
    assert [len(row) for row in ids] == [14, 17, 20]
    _, _, learned = made.to_learn(rows)
    assert learned == [18, 15, 10], "a row that is learned has the room that it needs"


@pytest.mark.parametrize(
    ("chat", "message"),
    [
        ("{% for m in messages %}{% if m['role'] == 'user' %}{{ m['content'] }}{% endif %}{% endfor %}", "the answer"),
        (
            "{% for m in messages %}{% if m['role'] != 'user' %}{{ m['content'] }}{% endif %}{% endfor %}",
            "what is asked",
        ),
        ("{{ raise_exception('no') }}", "template fails: no"),
        ("{% for m in messages[::-1] %}{{ m['content'] }};{% endfor %}", "elsewhere"),
    ],
)
def test_a_chat_template_that_leaves_something_out_is_named(chat: str, message: str) -> None:
    with pytest.raises(InputError, match=f"{message}.*data.template to plain"):
        Prompting.of(tokenizer(chat), PLAIN)
    assert Prompting.of(tokenizer(chat), PLAIN, form="plain").form == "plain"


def test_a_model_without_a_chat_template_or_an_end_says_so() -> None:
    with pytest.raises(InputError, match="no chat template"):
        Prompting.of(tokenizer(None), PLAIN, form="chat")
    with pytest.raises(InputError, match="no answer would end"):
        stop_tokens(SimpleNamespace(eos_token_id=None))
