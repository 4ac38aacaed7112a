"""Seats that generate: against PEFT and transformers' own loss and greedy search, alone and beside others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
import transformers
from torch.utils._python_dispatch import TorchDispatchMode

from tests.unit.tuners.conftest import STOP, Sums, load_base
from tuners.config import TrainConfig
from tuners.engine import Base, BaseSpec, Example, HeadSpec, Pack, SeatSpec, language
from tuners.engine.streams import permutation
from tuners.errors import SeatError, TunerError
from tuners.full.config import Config as FullConfig
from tuners.lora.config import Config as LoraConfig

FAMILIES = ("llama", "qwen2", "qwen3", "mistral")


@pytest.fixture
def models(generating: Callable[..., str]) -> Callable[..., str]:
    """models("llama", tied=True) -> a folder with a random model that generates."""
    return generating


def asking(name: str, *, config: Any = LoraConfig, seed: int = 0, **fields: Any) -> SeatSpec:
    tuner = {key: fields.pop(key) for key in list(fields) if key in config.model_fields}
    fields = {"batch_size": 8, "epochs": 20, "learning_rate": 3e-3, "max_new_tokens": 9, "seed": seed} | fields
    head = HeadSpec("generation", stop=(STOP,))
    return SeatSpec(name, config(**tuner), TrainConfig(**fields), head, Sums(40, seed), {"dev": Sums(17, 99)})


def classing(name: str, seat: Any) -> SeatSpec:
    spec: SeatSpec = seat(name, examples=30)
    return spec


def base_of(folder: str, *, trained: bool = False, language: bool = True, dtype: Any = "float64") -> Base:
    return load_base(BaseSpec(folder, trained=trained, language=language, dtype=dtype))


def padded(examples: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    longest = max(len(example.ids) for example in examples)
    ids = torch.zeros(len(examples), longest, dtype=torch.long)
    seen, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for row, example in enumerate(examples):
        size = len(example.ids)
        ids[row, :size] = torch.from_numpy(example.ids)
        seen[row, :size] = 1
        labels[row, int(example.label) : size] = ids[row, int(example.label) : size]
    return ids, seen, labels


def loss_of(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """What transformers computes, which rounds logits to float32 first."""
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)


def plain_losses(model: Any, spec: SeatSpec, steps: int) -> list[float]:
    """A user's own loop over the same rows, with the mean over the answers' tokens."""
    train, size, found = spec.train, len(spec.train_set), []
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=train.learning_rate, weight_decay=0.0)
    batches = -(-size // train.batch_size)
    for step in range(steps):
        epoch, batch = divmod(step, batches)
        order = permutation(train.seed, epoch, size)[batch * train.batch_size : (batch + 1) * train.batch_size]
        ids, seen, labels = padded([spec.train_set[int(row)] for row in order])
        loss = loss_of(model(input_ids=ids, attention_mask=seen).logits, labels)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, train.clip_norm)
        for group in optimiser.param_groups:
            group["lr"] = train.learning_rate * (1 - step / (train.epochs * batches))
        optimiser.step()
        found.append(float(loss.detach()))
    return found


def their_answers(model: Any, examples: Any, most: int) -> list[list[int]]:
    """transformers' greedy search, a prompt at a time."""
    found = []
    for index in range(len(examples)):
        prompt = torch.from_numpy(examples[index].ids[: int(examples[index].label)]).long()[None]
        seen = torch.ones_like(prompt)
        out = model.generate(prompt, attention_mask=seen, do_sample=False, max_new_tokens=most, pad_token_id=0)
        words = out[0, prompt.shape[1] :].tolist()
        found.append(words[: words.index(STOP)] if STOP in words else words)
    return found


def of_peft(folder: str, adapter: Path, *, trained: bool = False) -> Any:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    return peft.PeftModel.from_pretrained(model, str(adapter), is_trainable=trained)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tied", [True, False])
def test_losses_and_answers_are_those_of_peft(family: str, tied: bool, models: Any, tmp_path: Path) -> None:
    folder = models(family, tied=tied)
    pack, spec = Pack(base_of(folder)), asking("a", rank=4, dropout=0.0)
    pack.join(asking("before", rank=8, seed=1))
    pack.join(spec)
    pack.join(asking("after", rank=2, seed=2))
    pack.export("a", tmp_path / "start")
    rival = of_peft(folder, tmp_path / "start", trained=True).train()
    ours = [pack.step()["a"].loss for _ in range(60)]
    np.testing.assert_allclose(ours, plain_losses(rival, spec, 60), atol=1e-9)
    assert np.mean(ours[-5:]) < 0.95 * np.mean(ours[:5])
    pack.export("a", tmp_path / "end")
    model, dev = of_peft(folder, tmp_path / "end").eval(), spec.eval_sets["dev"]
    found = pack.evaluate(["before", "a", "after"])["a"]["dev"]
    assert [answer.tolist() for answer in found.answers] == their_answers(model, dev, 9)
    ids, seen, labels = padded([dev[row] for row in range(len(dev))])
    with torch.no_grad():
        assert found.loss == pytest.approx(float(model(input_ids=ids, attention_mask=seen, labels=labels).loss))


@pytest.mark.parametrize("tied", [True, False])
def test_full_fine_tuning_is_that_of_a_plain_loop(tied: bool, models: Any, tmp_path: Path) -> None:
    folder = models("llama", tied=tied)
    pack, spec = Pack(base_of(folder, trained=True)), asking("a", config=FullConfig, learning_rate=1e-3)
    pack.join(spec)
    plain = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).train()
    assert pack.progress("a").trainable == sum(parameter.numel() for parameter in plain.parameters())
    ours = [pack.step()["a"].loss for _ in range(60)]
    np.testing.assert_allclose(ours, plain_losses(plain, spec, 60), atol=1e-9)
    pack.export("a", tmp_path)
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float64).eval()
    found = pack.evaluate(["a"])["a"]["dev"].answers
    assert [answer.tolist() for answer in found] == their_answers(again, spec.eval_sets["dev"], 9)


def test_a_seat_that_generates_shares_a_pack_with_one_that_classifies(models: Any, seat: Any) -> None:
    base = base_of(models("llama"))

    def losses(names: tuple[str, ...]) -> dict[str, list[float]]:
        pack = Pack(base)
        for name in names:
            pack.join(asking(name, dropout=0.1) if name.startswith("g") else classing(name, seat))
        steps = [pack.step() for _ in range(15)]
        evaluations = pack.evaluate(names)
        return {name: [step[name].loss for step in steps] + [evaluations[name]["dev"].loss] for name in names}

    together = losses(("c1", "g1", "c2", "g2"))
    for name, found in together.items():
        np.testing.assert_allclose(found, losses((name,))[name], atol=1e-10)


def test_the_loss_does_not_depend_on_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(23, 8, dtype=torch.float64), torch.randn(40, 8, dtype=torch.float64)
    targets, scale = torch.randint(40, (23,)), torch.rand(23, dtype=torch.float64)

    def run(function: Any, *, trained: bool) -> list[torch.Tensor]:
        own, shared = x.clone().requires_grad_(), weight.clone().requires_grad_(trained)
        losses = function(own, shared, targets)
        (losses * scale).sum().backward()
        return [losses.detach(), own.grad, *([shared.grad] if trained else [])]

    def plain(x_PI: Any, weight_VI: Any, targets_P: Any) -> Any:
        return torch.nn.functional.cross_entropy(x_PI @ weight_VI.T, targets_P, reduction="none")

    for rows in (1, 7, 1000):
        monkeypatch.setattr(language, "CHUNK_BYTES", 4 * 40 * rows)
        for trained in (False, True):
            ours, theirs = (run(function, trained=trained) for function in (language.cross_entropy, plain))
            for mine, other in zip(ours, theirs, strict=True):
                torch.testing.assert_close(mine, other)


class Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's are untyped
    """Of the tensors that operations give, how many numbers the largest has."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for each in out if isinstance(out, tuple | list) else (out,):
            if isinstance(each, torch.Tensor):
                self.numbers = max(self.numbers, each.numel())
        return out


@pytest.mark.parametrize("trained", [False, True])
def test_the_logits_of_all_tokens_are_never_there_at_once(trained: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, words, rows = 500, 300, 64
    monkeypatch.setattr(language, "CHUNK_BYTES", 4 * words * rows)
    states = torch.randn(tokens, 8, requires_grad=True)
    weight = torch.randn(words, 8, requires_grad=trained)
    with Largest() as largest:  # type: ignore[no-untyped-call]
        loss = language.cross_entropy(states, weight, torch.randint(words, (tokens,))).sum()
        loss.backward()  # type: ignore[no-untyped-call]
    assert largest.numbers == rows * words


def test_small_forwards_and_accumulation_weigh_each_token_alike(models: Any) -> None:
    base = base_of(models("llama"))

    def losses(bound: int | None, **fields: Any) -> list[float]:
        pack = Pack(base, max_tokens=bound)
        pack.join(asking("a", **fields))
        return [pack.step()["a"].loss for _ in range(10)]

    np.testing.assert_allclose(losses(None), losses(20), atol=1e-10)
    np.testing.assert_allclose(losses(None), losses(None, batch_size=2, accumulation=4), atol=1e-10)


def test_an_answer_ends_at_the_most_tokens_and_at_the_models_positions(models: Any) -> None:
    pack = Pack(base_of(models("llama"), dtype="float32"))
    long = Sums(1)
    long._rows = [Example(np.arange(5, 65, dtype=np.int32), None, 59.0)]
    long.lengths = np.array([60], np.int32)
    for name, most in (("short", 2), ("long", 50)):
        spec = asking(name, max_new_tokens=most)
        # No word ends an answer of these.
        head, sets = HeadSpec("generation"), {"dev": spec.eval_sets["dev"], "edge": long}
        pack.join(SeatSpec(name, spec.tuner, spec.train, head, spec.train_set, sets))
    found = pack.evaluate(["short", "long"])
    assert {len(answer) for answer in found["short"]["dev"].answers} == {2}
    assert {len(answer) for answer in found["long"]["dev"].answers} == {50}
    assert [len(answer) for answer in found["long"]["edge"].answers] == [64 - 59 + 1]
    for short, longer in zip(found["short"]["dev"].answers, found["long"]["dev"].answers, strict=True):
        assert short.tolist() == longer[:2].tolist()


def test_memory_that_held_nan_does_not_reach_an_answer(models: Any) -> None:
    pack = Pack(base_of(models("llama"), dtype="float32"))
    pack.join(asking("a"))
    expected = [answer.tolist() for answer in pack.evaluate(["a"])["a"]["dev"].answers]
    # With this torch fills what `empty` gives with NaN.
    torch.use_deterministic_algorithms(True)
    try:
        found = [answer.tolist() for answer in pack.evaluate(["a"])["a"]["dev"].answers]
    finally:
        torch.use_deterministic_algorithms(False)
    assert found == expected


def test_an_example_without_an_answer_is_named(models: Any) -> None:
    pack, spec = Pack(base_of(models("llama"))), asking("a")
    spec.train_set._rows[3] = Example(np.array([5, 6, 7], np.int32), None, 3.0)  # type: ignore[attr-defined]
    pack.join(spec)
    pack.join(asking("b"))
    reports = [pack.step() for _ in range(5)]
    assert {report["a"].diverged for report in reports if "a" in report} - {""} == {
        "an example of 3 tokens has no prompt or no answer"
    }
    assert not any(report["b"].diverged for report in reports)


def test_a_base_that_cannot_generate_says_so(models: Any, tiny: Any) -> None:
    with pytest.raises(SeatError, match="output layer"):
        Pack(base_of(models("llama"), language=False)).join(asking("a"))
    with pytest.raises(TunerError, match="encoder"):
        base_of(tiny("bert"))
    with pytest.raises(TunerError, match=r"lacks weights: lm_head\.weight"):
        base_of(tiny("llama"))  # a backbone alone, whose output layer is not its embeddings


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_learns_to_answer(dtype: str, models: Any) -> None:
    pack = Pack(base_of(models("qwen3"), dtype=dtype))
    targets = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    pack.join(asking("a", rank=16, learning_rate=5e-3, epochs=120, target_modules=targets))
    while not pack.progress("a").finished:
        assert not pack.step()["a"].diverged
    spec = pack._seats["a"].spec
    train = spec.train_set
    pack._seats["a"].spec.eval_sets["train"] = train  # type: ignore[index]
    found = pack.evaluate(["a"])["a"]["train"].answers
    right = [
        answer.tolist() == train[index].ids[int(train[index].label) : -1].tolist() for index, answer in enumerate(found)
    ]
    assert np.mean(right) > 0.9
