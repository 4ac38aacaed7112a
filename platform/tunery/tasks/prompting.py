"""What a model that generates is given: a question as a prompt, in the model's own format of a chat or a plain one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from tunery.errors import InputError

if TYPE_CHECKING:
    from storage.tokens import Questions

Form = Literal["chat", "plain"]
_MARK = "tunery"
"""A word whose place in a chat shows where an answer would be."""


@dataclass(frozen=True)
class Prompting:
    """How questions are put to one model. Made once in training, and kept in the adapter's card."""

    form: Form
    template: str
    """Of a plain prompt: `{prompt}` stands for what is asked; the answer follows."""

    @classmethod
    def of(cls, tokenizer: Any, template: str, *, form: Literal["auto", "chat", "plain"] = "auto") -> Prompting:
        """In a chat's format where the model has one, unless `form` says otherwise. InputError where it cannot be."""
        has_chat = bool(getattr(tokenizer, "chat_template", None))
        if form == "chat" and not has_chat:
            raise InputError("the model has no chat template: set data.template to plain, or leave it out")
        made = cls("chat" if has_chat and form != "plain" else "plain", template)
        if made.form == "chat":
            made._check(tokenizer)
        return made

    def text(self, tokenizer: Any, asked: str) -> str:
        """The prompt, up to where the answer begins."""
        if self.form == "plain":
            return self.template.replace("{prompt}", asked)
        return _chat(tokenizer, [{"role": "user", "content": asked}], going_on=True)

    def questions(self, tokenizer: Any, *, max_length: int, room: int) -> Questions:
        """How questions are encoded, with room for so many tokens of an answer. InputError where none would end."""
        from storage.tokens import Questions  # loads numpy and pyarrow, which who only reads a card has no use for

        return Questions(
            tokenizer,
            max_length,
            lambda asked: self.text(tokenizer, asked),
            self.special_tokens,
            stop_tokens(tokenizer)[0],
            room,
        )

    @property
    def special_tokens(self) -> bool:
        """Whether the tokenizer is to add its own at the start: a chat's format has them already."""
        return self.form == "plain"

    def _check(self, tokenizer: Any) -> None:
        """A template may leave things out: what a model is to learn must be in it, and after the prompt."""
        asked = self.text(tokenizer, _MARK)
        answered = _chat(
            tokenizer,
            [{"role": "user", "content": _MARK}, {"role": "assistant", "content": _MARK * 2}],
            going_on=False,
        )
        if _MARK not in asked:
            raise InputError("the model's chat template drops what is asked: set data.template to plain")
        if not answered.startswith(asked.rstrip()) or _MARK * 2 not in answered[len(asked.rstrip()) :]:
            raise InputError(
                "the model's chat template drops the answer, or puts it elsewhere than after the prompt: "
                "set data.template to plain"
            )


def stop_tokens(tokenizer: Any) -> tuple[int, ...]:
    """Token ids at which an answer ends. InputError where the model has none: no answer would ever end."""
    if tokenizer.eos_token_id is None:
        raise InputError("the model's tokenizer has no token that ends a text, so that no answer would end")
    return (int(tokenizer.eos_token_id),)


def answer_text(tokenizer: Any, ids: Sequence[int]) -> str:
    """An answer's token ids as text. One that was ended may have half a character at its end: that is left out."""
    text: str = tokenizer.decode(list(ids), skip_special_tokens=True)
    return text.rstrip("\ufffd").strip()


def _chat(tokenizer: Any, messages: list[dict[str, str]], *, going_on: bool) -> str:
    try:
        text: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=going_on)
    except Exception as error:  # a template is a program of its own, and fails with whatever it wants
        raise InputError(f"the model's chat template fails: {error}; set data.template to plain") from error
    return text
