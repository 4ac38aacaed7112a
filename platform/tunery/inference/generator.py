"""Answers of a model that generates.

from tunery import Generator
Generator.load("medqa@champion")("感冒了可以吃退烧药吗？").text
"""

# B a batch, T tokens

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from tunery.errors import InputError
from tunery.home import Home
from tunery.inference.card import AdapterCard
from tunery.inference.loading import load, usable_device
from tunery.inference.predictor import Input
from tunery.inference.running import Hear, Running
from tunery.inference.source import locate
from tunery.tasks.prompting import Prompting, answer_text, stop_tokens

_WINDOW_BATCHES = 4
"""Batches read ahead to sort by length."""


@dataclass(frozen=True)
class Answer:
    """What the model says to one input."""

    text: str
    tokens: int = 0
    """How many it has; the one that ends it is not counted."""
    asked: int = 0
    """Tokens of its prompt, where they were counted."""
    ended: bool = True
    """False where it has as many tokens as it might."""
    scores: ClassVar[Mapping[str, float]] = {}
    """It has no labels."""

    @property
    def line(self) -> str:
        """For people."""
        return self.text

    def told(self) -> dict[str, Any]:
        """For programs, as documents hold it."""
        return {"answer": self.text}


class Generator:
    """A loaded model. Greedy: the same question has the same answer, but for rounding by what shares its batch."""

    def __init__(self, running: Running, card: AdapterCard, *, name: str) -> None:
        assert card.asking is not None
        self.card = card
        self.name = name
        """`medqa/3`, or the folder."""
        self._running = running
        self._tokenizer = tokenizer = running.tokenizer
        prompting = Prompting(card.asking.form, card.asking.template)
        self._stop = stop_tokens(tokenizer)
        self.max_new_tokens = most = card.asking.max_new_tokens
        """Of an answer."""
        self._questions = prompting.questions(tokenizer, max_length=card.max_length, room=most)

    @classmethod
    def load(
        cls,
        model: str | Path,
        home: Home | None = None,
        device: str | None = None,
        *,
        profile: str | None = None,
        quantised: bool = True,
    ) -> Generator:
        """What `Predictor.load` does, for a model that answers."""
        device = usable_device(device)
        source = locate(model, home=home, profile=profile)
        if source.card.asking is None:
            raise InputError(f"{source.name} gives a {source.card.kind}, and generates nothing: use Predictor")
        running = load(source.folder, source.card, device=device, quantised=quantised)
        return cls(running, source.card, name=source.name)

    def __call__(self, text: str, text_pair: str | None = None) -> Answer:
        return next(self.predict_many([(text, text_pair)], batch_size=1))

    def predict_many(self, inputs: Iterable[Input], batch_size: int = 16) -> Iterator[Answer]:
        """An answer to each, in their order. Reads ahead of what it yields by some batches."""
        iterator = (text for text, _ in inputs)
        while window := list(islice(iterator, batch_size * _WINDOW_BATCHES)):
            prompts = self.prompts(window)
            order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
            found = [Answer("")] * len(prompts)
            for start in range(0, len(order), batch_size):
                rows = order[start : start + batch_size]
                for row, answer in zip(rows, self._answers([prompts[row] for row in rows]), strict=True):
                    found[row] = answer
            yield from found

    def answers(self, texts: Iterable[str], batch_size: int = 16) -> Iterator[str]:
        """The same, of texts."""
        return (answer.text for answer in self.predict_many(((text, None) for text in texts), batch_size))

    def aloud(self, text: str, say: Callable[[str], object]) -> Answer:
        """The answer to one text, of which `say` is given the pieces as they come.

        Together they are its text; where a tokenizer takes back what it has decoded, the whole comes again at the end.
        """
        voice = _Voice(self._answer, say)
        (answer,) = self._answers(self.prompts([text]), voice.hear)
        voice.finish(answer)
        return answer

    def prompts(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids that the model is given, with room for an answer."""
        return self._questions.ask(texts)

    def _answers(self, prompts: Sequence[Sequence[int]], hear: Hear | None = None) -> list[Answer]:
        found = self._running.answers(prompts, most=self.max_new_tokens, stop=self._stop, hear=hear)
        return [self._answer(words) for words in found]

    def _answer(self, words: Sequence[int]) -> Answer:
        end = next((place for place, word in enumerate(words) if word in self._stop), len(words))
        return Answer(answer_text(self._tokenizer, words[:end]), end, ended=end < self.max_new_tokens)


class _Voice:
    """Says an answer while its words come."""

    def __init__(self, read: Callable[[Sequence[int]], Answer], say: Callable[[str], object]) -> None:
        self._read = read
        self._say = say
        self._words: list[int] = []
        self._said = ""

    def hear(self, words: Sequence[int]) -> None:
        """More of them."""
        self._words += words
        self._go_on(self._read(self._words).text)

    def finish(self, answer: Answer) -> None:
        """Say what is left."""
        self._go_on(answer.text)
        if self._said != answer.text:
            self._say(f"\n{answer.text}")

    def _go_on(self, text: str) -> None:
        # Some tokenizers change with a further token what the ones before it read: those wait for the end.
        if text.startswith(self._said) and text != self._said:
            self._say(text[len(self._said) :])
            self._said = text
