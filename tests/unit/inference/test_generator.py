"""Answers of adapters that the engine has trained, given by transformers and PEFT."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from transformers import AutoModelForCausalLM, GenerationConfig, LlamaConfig

from storage.datasets import Row, from_rows
from storage.tokens import Questions
from tests.unit.inference.conftest import TEXT, tokenizer
from tuners.config import TrainConfig
from tuners.engine import Base, BaseSpec, Example, HeadSpec, Pack, SeatSpec
from tuners.full.config import Config as FullConfig
from tuners.lora.config import Config as LoraConfig
from tunery.cli._ask import ask
from tunery.cli.output import Format
from tunery.errors import InputError
from tunery.inference.card import AdapterCard, AskingCard, BaseModelCard, ObjectiveCard
from tunery.inference.evaluate import evaluate
from tunery.inference.export import export
from tunery.inference.generator import Answer, Generator, _Voice
from tunery.inference.inputs import BadInput, Reader
from tunery.inference.predictor import Predictor
from tunery.tasks.custom import CustomTask
from tunery.tasks.prompting import Prompting, stop_tokens

QUESTIONS = ("the cat sat on mat", "a dog was smart", "john gave him present", "she think no", "he is john", "mat")
TASK = CustomTask(kind="generation", prompt="{who} {what}", template="{prompt} .", label="reply")


class Rows:
    def __init__(self, questions: Questions) -> None:
        words = TEXT.split()
        answers = [" ".join(words[place : place + 3]) for place in (3, 7, 11, 2, 15, 5)]
        self.rows = [Row(asked, None, 0.0, answer) for asked, answer in zip(QUESTIONS, answers, strict=True)]
        ids, _, sizes = questions.to_learn(self.rows)
        self._all = [Example(np.array(each, np.int32), None, size) for each, size in zip(ids, sizes, strict=True)]
        self.lengths: NDArray[np.int32] = np.array([len(each) for each in ids], np.int32)

    def __len__(self) -> int:
        return len(self._all)

    def __getitem__(self, index: int) -> Example:
        return self._all[index]


@pytest.fixture(scope="module", params=[LoraConfig, FullConfig], ids=["lora", "full"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Rows, Any]:
    """A folder with a model that has learned its answers by heart, its rows, and the engine's answers."""
    base, folder = tmp_path_factory.mktemp("base"), tmp_path_factory.mktemp("model")
    config = LlamaConfig(
        vocab_size=64, hidden_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
        intermediate_size=128, max_position_embeddings=64, initializer_range=0.3, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(base)
    # Published bases have such settings; the engine's greedy search knows none of them.
    GenerationConfig(repetition_penalty=1.5, min_new_tokens=7, do_sample=True, temperature=0.7).save_pretrained(base)
    words = tokenizer(bert=False)
    words.save_pretrained(base)
    prompting = Prompting.of(words, TASK.template)
    rows = Rows(prompting.questions(words, max_length=32, room=8))
    full = request.param is FullConfig
    pack = Pack(Base.load(BaseSpec(str(base), language=True, trained=full)))
    tuner = FullConfig() if full else LoraConfig(rank=16, target_modules=("q_proj", "v_proj", "o_proj", "up_proj"))
    train = TrainConfig(epochs=80, batch_size=6, learning_rate=3e-3 if full else 2e-2, max_new_tokens=8)
    pack.join(SeatSpec("a", tuner, train, HeadSpec("generation", stop=stop_tokens(words)), rows, {"dev": rows}))
    while not pack.progress("a").finished:
        assert not pack.step()["a"].diverged
    pack.export("a", folder)
    words.save_pretrained(folder)
    AdapterCard(
        task="replies",
        custom=TASK,
        kind="generation",
        asking=AskingCard(form="plain", template=TASK.template, max_new_tokens=8),
        base=BaseModelCard(id=str(base)),
        objective=ObjectiveCard(name="rougeL", value=1.0),
        max_length=32,
        merged=full,
    ).write(folder)
    answers = [words.decode(ids.tolist()) for ids in pack.evaluate(["a"])["a"]["dev"].answers]
    return folder, rows, answers


def test_its_answers_are_the_engines(trained: tuple[Path, Rows, list[str]]) -> None:
    folder, rows, engines = trained
    model = Generator.load(folder)
    assert list(model.answers(QUESTIONS, batch_size=4)) == engines == [row.answer for row in rows.rows]
    assert model(QUESTIONS[2]).text == engines[2], "alone, as beside others that are longer"


def test_an_answer_that_was_cut_says_so(trained: tuple[Path, Rows, list[str]]) -> None:
    folder, _, engines = trained
    model = Generator.load(folder)
    whole = model(QUESTIONS[2])
    model.max_new_tokens = 2
    cut = model(QUESTIONS[2])
    assert (whole.ended, whole.tokens, cut.ended, cut.tokens) == (True, 3, False, 2)
    assert engines[2].startswith(cut.text)


def test_an_answer_comes_in_pieces(trained: tuple[Path, Rows, list[str]]) -> None:
    folder, _, engines = trained
    pieces: list[str] = []
    answer = Generator.load(folder).aloud(QUESTIONS[2], pieces.append)
    assert "".join(pieces) == answer.text == engines[2]
    assert len(pieces) == answer.tokens == len(engines[2].split())


@pytest.mark.parametrize("trained", [LoraConfig], ids=["lora"], indirect=True)
def test_an_adapter_has_what_vllm_reads_and_nothing_else(trained: tuple[Path, Rows, list[str]]) -> None:
    folder, _, _ = trained
    # As its `PEFTHelper` and `parse_fine_tuned_lora_name` have it (vLLM 0.33).
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["bias"], config["modules_to_save"], config.get("use_dora", False)) == ("none", None, False)
    assert (config["r"], config["lora_alpha"], config.get("rank_pattern") or {}) == (16, 16.0, {})
    sides: dict[str, set[str]] = {}
    with safe_open(folder / "adapter_model.safetensors", "pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118  # it is no mapping
            place, side, weight = name.rsplit(".", 2)
            assert place.startswith("base_model.model.model.layers.")
            assert weight == "weight"
            sides.setdefault(place, set()).add(side)
    assert set(map(frozenset, sides.values())) == {frozenset({"lora_A", "lora_B"})}
    assert {place.rpartition(".")[2] for place in sides} == set(config["target_modules"])


def test_it_is_asked_one_after_the_other(
    trained: tuple[Path, Rows, list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _, engines = trained
    model, typed = Generator.load(folder), "".join(f"{question}\n" for question in QUESTIONS[:2]).encode()
    for output in Format:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(typed)))
        ask(model, Reader.of(model.card), output)
        captured = capsys.readouterr()
        if output is Format.TABLE:
            assert captured.out.splitlines() == engines[:2]
            assert len(re.findall(r"\(\d+ tokens, \d+ ms, \d+\.\d tokens/s\)", captured.err)) == 2
        else:
            told = [json.loads(line) for line in captured.out.splitlines()]
            assert [(entry["answer"], entry["tokens"]) for entry in told] == [(text, 3) for text in engines[:2]]


@pytest.mark.parametrize(
    ("texts", "pieces"),
    [
        (["", "房", "房", "房间"], ["房", "间"]),  # a token may be half a letter
        (["a", "a .", "a."], ["a", " .", "\na."]),
        (["a", "a b", "a c", "a c d"], ["a", " b", "\na c d"]),
        ([""], []),
    ],
)
def test_what_a_tokenizer_takes_back_comes_again_at_the_end(texts: list[str], pieces: list[str]) -> None:
    said: list[str] = []
    voice = _Voice(lambda words: Answer(texts[len(words) - 1]), said.append)
    for number in range(len(texts)):
        voice.hear([number])
    voice.finish(Answer(texts[-1]))
    assert said == pieces


def test_it_is_measured_as_in_training(trained: tuple[Path, Rows, list[str]]) -> None:
    folder, rows, _ = trained
    found = evaluate(Generator.load(folder), TASK.task("replies"), {"validation": from_rows(rows.rows, "test")})
    assert found.objective == pytest.approx(1.0)
    assert found.metrics["bleu"] <= 1.0


def test_it_is_merged_and_says_the_same(trained: tuple[Path, Rows, list[str]], tmp_path: Path) -> None:
    folder, _, engines = trained
    if AdapterCard.read(folder).merged:
        export(folder, tmp_path / "copy")
        assert list(Generator.load(tmp_path / "copy").answers(QUESTIONS)) == engines
        return
    done = export(folder, tmp_path / "whole", merge=True)
    assert done.max_difference is not None
    assert done.max_difference < 1e-4
    assert not (tmp_path / "whole" / "adapter_model.safetensors").exists()
    assert list(Generator.load(tmp_path / "whole").answers(QUESTIONS)) == engines


def test_a_model_of_the_other_kind_says_which_to_use(trained: tuple[Path, Rows, Any], adapter: Path) -> None:
    with pytest.raises(InputError, match="use Generator"):
        Predictor.load(trained[0])
    with pytest.raises(InputError, match="use Predictor"):
        Generator.load(adapter)


def test_an_input_is_a_text_or_the_tasks_columns(trained: tuple[Path, Rows, Any]) -> None:
    reader = Reader.of(AdapterCard.read(trained[0]))

    def read(value: object) -> tuple[Any, str]:
        line = next(iter(reader.read([json.dumps(value).encode()])))
        return line.input, line.why

    assert read("the cat") == (("the cat", None), "")
    assert read({"text": "the cat"}) == (("the cat", None), "")
    assert read({"who": "john", "what": "sat", "more": 1}) == (("john sat", None), "")
    assert read({"who": "john", "what": ""}) == (("john", None), "")
    assert read({"who": "john"}) == (None, "'what' holds no text: expected 'text', or the columns 'who', 'what'")
    assert "are empty" in read({"who": "", "what": None})[1]
    with pytest.raises(BadInput, match="takes one text"):
        reader.checked("a", "b")
