"""What computes a model's outputs: transformers with PEFT's adapter, or the engine for what PEFT does not know."""

# B inputs, T tokens, C classes (1 for a regression), V words

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tuners.engine import Asker, Example, Reader

Logits = NDArray[np.float32]
Hear = Callable[[Sequence[int]], None]
"""Given the words of an answer as they come; of one prompt alone."""


class Running(Protocol):
    """A loaded model."""

    @property
    def tokenizer(self) -> Any:
        """transformers'."""

    def logits(self, ids: Sequence[Sequence[int]], types: Sequence[Sequence[int]] | None) -> Logits:
        """[B, C] of one batch."""

    def answers(
        self, prompts: Sequence[Sequence[int]], *, most: int, stop: tuple[int, ...], hear: Hear | None = None
    ) -> list[list[int]]:
        """The likeliest words after each prompt: at most so many, up to one that ends an answer, and what is beyond."""


@dataclass(frozen=True)
class InTransformers:
    """A model of transformers', with PEFT's adapter or merged."""

    model: nn.Module
    tokenizer: Any
    pad_token: int
    """Token id that fills the shorter sequences of a batch; the attention mask hides it."""
    device: str

    @torch.inference_mode()
    def logits(self, ids: Sequence[Sequence[int]], types: Sequence[Sequence[int]] | None) -> Logits:
        """[B, C]"""
        inputs = {
            "input_ids": self._padded(ids, self.pad_token),
            "attention_mask": self._padded([[1] * len(x) for x in ids], 0),
        }
        if types is not None:
            inputs["token_type_ids"] = self._padded(types, 0)
        logits_BC: Logits = self.model(**inputs).logits.float().cpu().numpy()
        return logits_BC

    @torch.inference_mode()
    def next_words(self, prompts: Sequence[Sequence[int]]) -> Logits:
        """[B, V] the logits of the first word of each answer."""
        rows = [self.model(torch.tensor([ids], device=self.device)).logits[0, -1].float().cpu() for ids in prompts]
        found: Logits = torch.stack(rows).numpy()
        return found

    @torch.inference_mode()
    def answers(
        self, prompts: Sequence[Sequence[int]], *, most: int, stop: tuple[int, ...], hear: Hear | None = None
    ) -> list[list[int]]:
        """With transformers' greedy search."""
        longest = max(map(len, prompts))
        # Filled on the left, so that all answers begin at the same place.
        ids_BT = torch.tensor([[*[self.pad_token] * (longest - len(ids)), *ids] for ids in prompts], device=self.device)
        seen_BT = torch.tensor([[0] * (longest - len(ids)) + [1] * len(ids) for ids in prompts], device=self.device)
        model: Any = self.model
        out_BT = model.generate(
            ids_BT,
            attention_mask=seen_BT,
            do_sample=False,
            num_beams=1,
            max_new_tokens=most,
            eos_token_id=list(stop),
            pad_token_id=self.pad_token,
            streamer=None if hear is None else _Streamer(hear),
        )
        words: list[list[int]] = out_BT[:, longest:].tolist()
        return words

    def _padded(self, rows: Sequence[Sequence[int]], filler: int) -> torch.Tensor:
        """[B, T], filled on the right: positions count from the left in every family that is trained here."""
        longest = max(map(len, rows))
        return torch.tensor([[*row, *[filler] * (longest - len(row))] for row in rows], device=self.device)


class _Streamer:
    """As transformers wants one: it is given the prompt's tokens, and then each new one."""

    def __init__(self, hear: Hear) -> None:
        self._hear = hear
        self._prompt = True

    def put(self, value: torch.Tensor) -> None:
        if not self._prompt:
            self._hear(value.flatten().tolist())
        self._prompt = False

    def end(self) -> None:
        """Nothing: whoever asked has the answer."""


@dataclass(frozen=True)
class InEngine:
    """One model that the engine has read."""

    reader: Reader
    name: str
    """Its name there."""
    tokenizer: Any

    def logits(self, ids: Sequence[Sequence[int]], types: Sequence[Sequence[int]] | None) -> Logits:
        """[B, C]"""
        all_types = [None] * len(ids) if types is None else [np.array(each, np.int8) for each in types]
        examples = [Example(np.array(own, np.int32), kind, 0.0) for own, kind in zip(ids, all_types, strict=True)]
        return self.reader.logits({self.name: examples})[self.name]

    def answers(
        self, prompts: Sequence[Sequence[int]], *, most: int, stop: tuple[int, ...], hear: Hear | None = None
    ) -> list[list[int]]:
        """With the engine's greedy search, which brings an answer when it is whole."""
        asker = Asker([np.array(prompt, np.int32) for prompt in prompts], most, stop)
        found = [words.tolist() for words in self.reader.answers({self.name: asker})[self.name]]
        if hear is not None:
            hear(found[0])
        return found


if TYPE_CHECKING:
    _a: type[Running] = InTransformers
    _b: type[Running] = InEngine
