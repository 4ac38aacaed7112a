"""Models on one base, asked together: one forward of the base for all of them, however different their adapters are.

The engine that trained them computes them here too, so that what it exports as no PEFT adapter is read like the rest.
"""

# N inputs, C classes

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import AutoTokenizer

from storage.tokens import encoder
from tuners.engine import Asker, Base, Example, Reader
from tunery.errors import InputError
from tunery.inference.card import AdapterCard, AskingCard
from tunery.inference.engine import read
from tunery.inference.generator import Answer
from tunery.inference.inputs import BadInput
from tunery.inference.inputs import Reader as Inputs
from tunery.inference.predictor import Prediction, prediction_of
from tunery.inference.source import Source
from tunery.tasks.prompting import Prompting, answer_text, stop_tokens


@dataclass(frozen=True)
class Asked:
    """One input for one model."""

    model: str
    text: str
    text_pair: str | None = None
    most: int | None = None
    """Tokens of an answer; None: as many as in training."""


Encode = Callable[[str, str | None], Example]


@dataclass(frozen=True)
class _Member:
    card: AdapterCard
    inputs: Inputs
    encode: Encode
    read: Callable[[Sequence[int]], str]
    """An answer's tokens as text."""
    stop: tuple[int, ...]


class Together:
    """Models on one base."""

    def __init__(self, base: Base) -> None:
        self._reader = Reader(base)
        self._members: dict[str, _Member] = {}

    def card(self, name: str) -> AdapterCard:
        """Of a model that can be asked."""
        return self._members[name].card

    def add(self, name: str, source: Source) -> None:
        """Read a model, in the place of another of this name. InputError where its folder is not what its card says."""
        member = _member(source)
        read(self._reader, name, source.folder, member.card, stop=member.stop)
        self._members[name] = member

    def ask(self, asked: Sequence[Asked]) -> list[Prediction | Answer]:
        """What each model says to each input, in their order. InputError for one that its model cannot take."""
        examples = [self._example(each) for each in asked]
        for each, example in zip(asked, examples, strict=True):
            if not len(example.ids):
                raise InputError(f"an input of {each.model} has no tokens: {each.text!r}")
        found: dict[int, Prediction | Answer] = {}
        answering = [self._members[each.model].card.kind == "generation" for each in asked]
        self._predict([n for n, answers in enumerate(answering) if not answers], asked, examples, found)
        self._answer([n for n, answers in enumerate(answering) if answers], asked, examples, found)
        return [found[number] for number in range(len(asked))]

    def _example(self, asked: Asked) -> Example:
        member = self._members[asked.model]
        try:
            text, text_pair = member.inputs.checked(asked.text, asked.text_pair)
        except BadInput as error:
            raise InputError(f"an input of {asked.model}: {error}") from error
        return member.encode(text, text_pair)

    def _predict(
        self, numbers: list[int], asked: Sequence[Asked], examples: Sequence[Example], found: dict[int, Any]
    ) -> None:
        by_model = _by([asked[number].model for number in numbers], numbers)
        if not by_model:
            return
        logits = self._reader.logits({name: [examples[number] for number in own] for name, own in by_model.items()})
        for name, own in by_model.items():
            for number, logits_C in zip(own, logits[name], strict=True):
                found[number] = prediction_of(self.card(name), logits_C)

    def _answer(
        self, numbers: list[int], asked: Sequence[Asked], examples: Sequence[Example], found: dict[int, Any]
    ) -> None:
        # An answer's length is the asker's: those of one length go together.
        lengths: dict[int, list[int]] = {}
        for number in numbers:
            asking = self.card(asked[number].model).asking
            assert asking is not None
            lengths.setdefault(asked[number].most or asking.max_new_tokens, []).append(number)
        for most, own_numbers in lengths.items():
            by_model = _by([asked[number].model for number in own_numbers], own_numbers)
            answers = self._reader.answers(
                {
                    name: Asker([examples[number].ids for number in own], most, self._members[name].stop)
                    for name, own in by_model.items()
                }
            )
            for name, own in by_model.items():
                for number, words in zip(own, answers[name], strict=True):
                    found[number] = Answer(
                        self._members[name].read(words.tolist()),
                        len(words),
                        asked=len(examples[number].ids),
                        # No answer goes on beyond the model's positions.
                        ended=len(words) < min(most, self._reader.base.longest - len(examples[number].ids) + 1),
                    )


def _by(names: Sequence[str], numbers: Sequence[int]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for name, number in zip(names, numbers, strict=True):
        found.setdefault(name, []).append(number)
    return found


def _member(source: Source) -> _Member:
    card = source.card
    tokenizer = AutoTokenizer.from_pretrained(str(source.folder), trust_remote_code=False)
    stop = stop_tokens(tokenizer) if card.asking is not None else ()
    encode = _text(card, tokenizer) if card.asking is None else _question(card, card.asking, tokenizer)
    return _Member(card, Inputs.of(card), encode, lambda words: answer_text(tokenizer, words), stop)


def _text(card: AdapterCard, tokenizer: Any) -> Encode:
    encoded = encoder(tokenizer, card.max_length)

    def encode(text: str, text_pair: str | None) -> Example:
        (ids,), types = encoded([text], None if text_pair is None else [text_pair])
        return Example(np.array(ids, np.int32), None if types is None else np.array(types[0], np.int8), 0.0)

    return encode


def _question(card: AdapterCard, asking: AskingCard, tokenizer: Any) -> Encode:
    prompting = Prompting(asking.form, asking.template)
    questions = prompting.questions(tokenizer, max_length=card.max_length, room=asking.max_new_tokens)

    def encode(text: str, _text_pair: str | None) -> Example:
        (ids,) = questions.ask([text])
        return Example(np.array(ids, np.int32), None, 0.0)

    return encode
