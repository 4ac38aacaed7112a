"""Token files: a split tokenised once, kept as a memory-mapped Arrow file named by the hash of what it came from.

Columns: ids list<int32>, types list<int8> (only for models that use them), label float64, answer string (only of rows
with answers, whose label is the number of the prompt's tokens).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from storage.datasets.rows import Row, Rows
from storage.errors import ChecksumError, DataError, StorageError

Encode = Callable[[list[str], list[str] | None], tuple[list[list[int]], list[list[int]] | None]]
"""Texts and second texts -> token ids and token types of each."""


class Encoded(NamedTuple):
    """Some rows, tokenised."""

    ids: list[list[int]]
    types: list[list[int]] | None
    labels: list[float]


EncodeRows = Callable[[Sequence[Row]], Encoded]

_FORMAT = "1"
"""Part of every file's name: raised when the layout changes, so that no old file is taken for a new one."""
_ROWS_A_BATCH = 4096


class Example(NamedTuple):
    """One tokenised example; the arrays are read-only views into the mapped file."""

    ids: NDArray[np.int32]
    types: NDArray[np.int8] | None
    label: float


@dataclass(frozen=True)
class TokenFile:
    """A token file on disk."""

    path: Path
    examples: int
    tokens: int


class Tokenizer(Protocol):
    """What is used of a transformers tokenizer."""

    model_input_names: Sequence[str]
    backend_tokenizer: Any

    def __call__(self, text: list[str], text_pair: list[str] | None, **options: Any) -> Mapping[str, Any]: ...


def encoder(tokenizer: Tokenizer, max_length: int) -> Encode:
    """Encode with a transformers tokenizer: at most `max_length` tokens, the longer text of a pair cut first."""
    uses_types = "token_type_ids" in tokenizer.model_input_names

    def encode(texts: list[str], pairs: list[str] | None) -> tuple[list[list[int]], list[list[int]] | None]:
        encoded = tokenizer(
            texts,
            pairs,
            truncation="longest_first",
            max_length=max_length,
            padding=False,
            return_attention_mask=False,
            return_token_type_ids=uses_types,
        )
        return encoded["input_ids"], encoded["token_type_ids"] if uses_types else None

    return encode


def labelled(encode: Encode) -> EncodeRows:
    """Rows whose labels stay as they are."""

    def run(rows: Sequence[Row]) -> Encoded:
        pairs = [row.text_pair for row in rows if row.text_pair is not None]
        assert len(pairs) in (0, len(rows)), "some rows have a second text and some have none"
        return Encoded(*encode([row.text for row in rows], pairs or None), [row.label for row in rows])

    return run


@dataclass(frozen=True)
class Questions:
    """Encodes questions, with their answers or without.

    What is too long is cut so that at most `max_length` tokens are left: of a prompt the middle, as far as an answer
    needs the room and no further than to a half of them; then the answer's end. In training that answer is the row's
    own. An evaluation's prompts are those that a user's question gets, so that no score knows how long answers are.
    """

    tokenizer: Any
    max_length: int
    prompt: Callable[[str], str]
    """From what is asked to the text that the model is given."""
    special_tokens: bool
    """Whether the tokenizer adds its own at the start."""
    stop: int
    """Token id that ends an answer."""
    room: int
    """Tokens that an answer may have."""

    def ask(self, texts: Sequence[str]) -> list[list[int]]:
        """The prompts' token ids, with room for an answer."""
        return [self._cut(ids, self.room) for ids in self._prompts(texts)]

    def to_learn(self, rows: Sequence[Row]) -> Encoded:
        """Prompts followed by their answers; a row's label is how many tokens its prompt has."""
        answers = self._answers(rows)
        prompts = self._prompts([row.text for row in rows])
        return self._joined([self._cut(ids, len(own)) for ids, own in zip(prompts, answers, strict=True)], answers)

    def to_evaluate(self, rows: Sequence[Row]) -> Encoded:
        """The same, with the prompts that `ask` gives."""
        return self._joined(self.ask([row.text for row in rows]), self._answers(rows))

    def _cut(self, prompt: list[int], room: int) -> list[int]:
        return _without_middle(prompt, max(self.max_length // 2, self.max_length - room))

    def _joined(self, prompts: list[list[int]], answers: list[list[int]]) -> Encoded:
        ids = [[*prompt, *own][: self.max_length] for prompt, own in zip(prompts, answers, strict=True)]
        return Encoded(ids, None, [float(len(prompt)) for prompt in prompts])

    def _answers(self, rows: Sequence[Row]) -> list[list[int]]:
        return [[*self.tokenizer(row.answer, add_special_tokens=False)["input_ids"], self.stop] for row in rows]

    def _prompts(self, texts: Sequence[str]) -> list[list[int]]:
        prompts = [self.prompt(text) for text in texts]
        found = self.tokenizer(prompts, add_special_tokens=self.special_tokens)["input_ids"]
        if self.special_tokens and self.tokenizer.eos_token_id is not None:
            # Some tokenizers end every text.
            found = [ids[:-1] if ids[-1:] == [self.tokenizer.eos_token_id] else ids for ids in found]
        return [list(ids) for ids in found]


def _without_middle(ids: list[int], most: int) -> list[int]:
    if len(ids) <= most:
        return ids
    head = most // 2
    return [*ids[:head], *ids[len(ids) - (most - head) :]]


def fingerprint(tokenizer: Tokenizer) -> str:
    """SHA-256 of what the tokenizer does, the same before and after it was used."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    # A call with truncation or padding leaves its settings behind; they are the call's, not the tokenizer's.
    state.pop("truncation", None)
    state.pop("padding", None)
    content = json.dumps([state, list(tokenizer.model_input_names)], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def tokenise(rows: Rows, encode: EncodeRows, *, key: str, cache: Path) -> TokenFile:
    """The token file of these rows; made if it is not there, or not whole.

    `key` stands for what `encode` does (tokenizer, length, format of a prompt). Of two callers at once the second one
    waits and takes the first one's file. DataError for a row without tokens, StorageError where the file cannot be
    written.
    """
    name = hashlib.sha256(f"{_FORMAT}\0{rows.fingerprint}\0{key}".encode()).hexdigest()
    path = cache / f"{name}.arrow"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with _alone(cache / f".{name}.lock"):
            ready = _existing(path)
            if ready is not None:
                return ready
            # The name is fixed, so that what a killed builder left is overwritten by the next one.
            temporary = cache / f".{name}.part"
            try:
                _write(temporary, rows, encode)
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"cannot write the token file {path}: {error.strerror or error}") from error
    table = TokenTable(path)
    return TokenFile(path, len(table), int(table.lengths.sum()))


class TokenTable:
    """A token file, memory-mapped: nothing is copied, and processes on one machine share its pages."""

    def __init__(self, path: Path) -> None:
        """ChecksumError for a file that is not whole, StorageError for one that is not there."""
        self.path = path
        try:
            with pa.memory_map(str(path)) as source:
                reader = pa.ipc.open_file(source)
                batches = [reader.get_batch(index) for index in range(reader.num_record_batches)]
        except FileNotFoundError:
            raise StorageError(f"no token file {path}") from None
        except (pa.ArrowException, OSError) as error:
            raise ChecksumError(f"the token file {path} is not whole; delete it to have it made again") from error
        self._ids = [_Lists(batch.column("ids")) for batch in batches]
        self._types = [_Lists(batch.column("types")) for batch in batches if "types" in batch.schema.names]
        self._answers = [batch.column("answer") for batch in batches if "answer" in batch.schema.names]
        labels = [batch.column("label").to_numpy() for batch in batches]
        self._labels: NDArray[np.float64] = np.concatenate([np.empty(0), *labels])
        lengths = [np.diff(part.offsets) for part in self._ids]
        self.lengths: NDArray[np.int32] = np.concatenate([np.empty(0, np.int32), *lengths])
        """Tokens of each example [N]."""

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(f"example {index} of {len(self)} in {self.path}")
        batch, row = divmod(index, _ROWS_A_BATCH)
        types = self._types[batch][row] if self._types else None
        return Example(self._ids[batch][row], types, float(self._labels[index]))

    @property
    def answers(self) -> list[str]:
        """What the rows' answers are, whole; none where rows have labels."""
        return [text for column in self._answers for text in column.to_pylist()]

    def __reduce__(self) -> tuple[type[TokenTable], tuple[Path]]:
        # A process that gets one maps the file itself.
        return TokenTable, (self.path,)


class _Lists:
    """A list column of one record batch, as numpy views."""

    def __init__(self, column: Any) -> None:
        self.values = column.values.to_numpy(zero_copy_only=True)
        self.offsets = column.offsets.to_numpy(zero_copy_only=True)

    def __getitem__(self, row: int) -> Any:
        return self.values[self.offsets[row] : self.offsets[row + 1]]


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    with lock.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _existing(path: Path) -> TokenFile | None:
    try:
        table = TokenTable(path)
    except StorageError:
        return None
    return TokenFile(path, len(table), int(table.lengths.sum()))


def _write(path: Path, rows: Rows, encode: EncodeRows) -> None:
    with path.open("wb") as handle:
        writer = None
        for first in range(0, len(rows.rows), _ROWS_A_BATCH):
            batch = _encoded(rows.rows[first : first + _ROWS_A_BATCH], encode, f"{rows.origin}: example", first)
            writer = writer or pa.ipc.new_file(handle, batch.schema)
            writer.write_batch(batch)
        assert writer is not None, "Rows are never empty"
        writer.close()
        handle.flush()
        os.fsync(handle.fileno())


def _encoded(rows: Sequence[Row], encode: EncodeRows, place: str, first: int) -> pa.RecordBatch:
    ids, types, labels = encode(rows)
    for number, tokens in enumerate(ids, start=first):
        if not tokens:
            raise DataError(f"{place} {number}: the tokenizer makes no token of {rows[number - first].text!r}")
    columns = {"ids": pa.array(ids, pa.list_(pa.int32()))}
    if types is not None:
        columns["types"] = pa.array(types, pa.list_(pa.int8()))
    columns["label"] = pa.array(labels, pa.float64())
    if any(row.answer is not None for row in rows):
        columns["answer"] = pa.array([row.answer for row in rows], pa.string())
    return pa.record_batch(columns)
