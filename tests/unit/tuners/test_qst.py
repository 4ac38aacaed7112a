"""Side tuning against a plain loop over padded batches, alone and beside others; what is shared and what is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional

from tests.unit.tuners.conftest import STOP, Sums, load_base, without_dropout
from tuners.config import TrainConfig
from tuners.engine import Base, BaseSpec, Example, HeadSpec, Pack, SeatSpec
from tuners.engine.beside import Kept
from tuners.engine.language import LanguageHead
from tuners.engine.layout import Layout, Rows
from tuners.engine.linear import _Packed
from tuners.engine.streams import permutation
from tuners.errors import SeatError, TunerError
from tuners.qst.config import Config as QstConfig

STEPS = 40
FAMILIES = ("bert", "roberta", "llama", "qwen3")
SMALL = {"reduction": 4, "down_rank": 4, "quantise": False}


def side(seat: Callable[..., SeatSpec], name: str = "a", **fields: Any) -> SeatSpec:
    return seat(name, config=QstConfig, **({"learning_rate": 3e-3} | SMALL | fields))


def base_of(folder: str, *, kept: int = 0, dtype: Any = "float64", **fields: Any) -> Base:
    return load_base(BaseSpec(folder, beside=True, kept_bytes=kept, dtype=dtype, **fields))


def losses(pack: Pack, steps: int = STEPS) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in pack.seats}
    for _ in range(steps):
        for name, report in pack.step().items():
            found[name].append(report.loss)
    return found


def rms(x: Tensor) -> Tensor:
    return x * (x.pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt()


class Plain(nn.Module):
    """One seat's network as one would write it down, over padded batches."""

    def __init__(self, folder: str, weights: dict[str, Tensor], *, width: int, pooling: bool) -> None:
        super().__init__()
        self.weights = nn.ParameterDict(
            {name.replace(".", "/"): nn.Parameter(v.clone()) for name, v in weights.items()}
        )
        self.model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float64).eval()
        self.width, self.pooling = width, pooling
        self.decoder = hasattr(self.model, "norm")

    def forward(self, ids: Tensor) -> Tensor:
        seen = ids != 0
        states: list[Tensor] = []
        layers = next(module for module in self.model.modules() if isinstance(module, nn.ModuleList))
        hooks = [layers[0].register_forward_pre_hook(lambda _layer, inputs: states.append(inputs[0]))]

        def take(_layer: nn.Module, _inputs: Any, out: Any) -> None:
            states.append(out[0] if isinstance(out, tuple) else out)

        hooks += [layer.register_forward_hook(take) for layer in layers]
        with torch.no_grad():
            self.model(input_ids=ids, attention_mask=seen.long())
        for hook in hooks:
            hook.remove()

        def get(name: str) -> Tensor:
            found: Tensor = self.weights[name.replace(".", "/")]
            return found

        def down(place: int) -> Tensor:
            x = rms(states[place])
            if self.pooling:
                return x.view(*x.shape[:-1], self.width, -1).mean(-1)
            return x @ get(f"side.down.{place}.in").T @ get(f"side.down.{place}.out").T

        mask = seen[:, None, :].expand(-1, ids.shape[1], -1)
        if self.decoder:
            mask = mask & torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool).tril()
        s = down(0)
        for layer in range(1, len(states)):
            z = torch.sigmoid(get(f"side.layer.{layer}.z"))
            s = (1 - z) * down(layer) + z * s
            x = rms(s) * get(f"side.layer.{layer}.attention_norm")
            q, k, v = (x @ get(f"side.layer.{layer}.qkv").T).chunk(3, -1)
            scores = q @ k.transpose(1, 2) / self.width**0.5  # one head at these widths
            out = torch.softmax(scores.masked_fill(~mask, float("-inf")), -1) @ v
            s = s + out @ get(f"side.layer.{layer}.attention_out").T
            x = rms(s) * get(f"side.layer.{layer}.feed_norm")
            gate, up = (x @ get(f"side.layer.{layer}.gate_up").T).chunk(2, -1)
            s = s + (functional.silu(gate) * up) @ get(f"side.layer.{layer}.feed_out").T
        a = torch.sigmoid(get("side.a"))
        mixed = (1 - a) * ((rms(s) * get("side.norm")) @ get("side.up").T) + a * states[-1]
        if self.decoder:
            normed: Tensor = self.model.norm(mixed)
            return normed[torch.arange(len(ids)), seen.sum(1) - 1] @ get("score.weight").T
        first = mixed[:, 0]
        if "classifier.dense.weight" in {name.replace("/", ".") for name in self.weights}:
            first = torch.tanh(first @ get("classifier.dense.weight").T + get("classifier.dense.bias"))
            return first @ get("classifier.out_proj.weight").T + get("classifier.out_proj.bias")
        first = torch.tanh(self.model.pooler.dense(first))
        return first @ get("classifier.weight").T + get("classifier.bias")


def padded(examples: Sequence[Any]) -> Tensor:
    ids = torch.zeros(len(examples), max(len(example.ids) for example in examples), dtype=torch.long)
    for row, example in enumerate(examples):
        ids[row, : len(example.ids)] = torch.from_numpy(example.ids)
    return ids


def plain_losses(plain: Plain, spec: SeatSpec) -> list[float]:
    optimiser = torch.optim.AdamW(plain.weights.parameters(), lr=spec.train.learning_rate, weight_decay=0.0)
    size, rows = spec.train.batch_size, len(spec.train_set)
    batches = -(-rows // size)
    total, found = spec.train.epochs * batches, []
    for step in range(STEPS):
        epoch, batch = divmod(step, batches)
        order = permutation(spec.train.seed, epoch, rows)[batch * size : (batch + 1) * size]
        examples = [spec.train_set[int(row)] for row in order]
        labels = torch.tensor([int(example.label) for example in examples])
        loss = functional.cross_entropy(plain(padded(examples)), labels)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(plain.weights.parameters(), spec.train.clip_norm)
        for group in optimiser.param_groups:
            group["lr"] = spec.train.learning_rate * (1 - step / total)
        optimiser.step()
        found.append(float(loss.detach()))
    return found


@pytest.mark.parametrize("down", ["low-rank", "pooling"])
@pytest.mark.parametrize("family", FAMILIES)
def test_its_losses_are_those_of_a_plain_loop(family: str, down: str, tiny: Any, seat: Any, tmp_path: Path) -> None:
    folder = without_dropout(tiny(family), tmp_path / "base")
    pack, spec = Pack(base_of(folder)), side(seat, down=down)
    pack.join(spec)
    row, own = pack._seats["a"].row, {segment.name for segment in pack._seats["a"].adapter.segments}
    start = {
        f"side.{name}" if name in own else name: values.cpu().clone() for name, values in row.views(row.theta).items()
    }
    ours = losses(pack)["a"]
    theirs = plain_losses(Plain(folder, start, width=16, pooling=down == "pooling"), spec)
    assert ours[-1] < ours[0]
    # Both in float64, summed in another order.
    np.testing.assert_allclose(ours, theirs, atol=1e-8)


def mixed(seat: Any) -> list[SeatSpec]:
    return [
        side(seat, "a", seed=1),
        side(seat, "b", seed=1, learning_rate=1e-3),
        side(seat, "c", seed=2, batch_size=5),
        side(seat, "d", seed=1, down="pooling"),
        side(seat, "e", seed=1, reduction=8, classes=3),
        side(seat, "f", seed=1, classes=1),
    ]


@pytest.mark.parametrize("kept", [0, 1 << 20])
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_seats_together_are_as_each_alone(family: str, kept: int, tiny: Any, seat: Any) -> None:
    base = base_of(tiny(family), kept=kept)
    together = Pack(base)
    for spec in mixed(seat):
        together.join(spec)
    found = losses(together)
    dev = together.evaluate(together.seats)
    for spec in mixed(seat):
        alone = Pack(base_of(tiny(family)))
        alone.join(spec)
        np.testing.assert_allclose(losses(alone)[spec.name], found[spec.name], atol=1e-10)
        own = alone.evaluate([spec.name])[spec.name]["dev"].logits
        np.testing.assert_allclose(own, dev[spec.name]["dev"].logits, atol=1e-6)


def test_no_gradient_ever_reaches_the_base(tiny: Any, seat: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pack = Pack(base_of(tiny("llama"), dtype="float32"))
    pack.join(side(seat))
    before = [values.clone() for values in pack.base.tensors]

    def reached(*_: Any) -> None:
        raise AssertionError("a gradient came to a layer of the base")

    monkeypatch.setattr(_Packed, "backward", staticmethod(reached))
    losses(pack, 5)
    assert all(torch.equal(old, new) for old, new in zip(before, pack.base.tensors, strict=True))
    assert not any(values.requires_grad or values.grad is not None for values in pack.base.tensors)


class Pooled:
    """Takes what a base's `pooled` gives in one evaluation."""

    def __init__(self, pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
        self.states: list[Tensor] = []
        pooled = pack.base.pooled

        def taking(*given: Any, **more: Any) -> Tensor:
            self.states.append(pooled(*given, **more).detach().clone())
            return self.states[-1]

        monkeypatch.setattr(pack.base, "pooled", taking)
        pack.evaluate(pack.seats)


@pytest.mark.parametrize(("family", "share"), [("llama", 1.0), ("qwen3", 1.0), ("roberta", 1 / (1 + np.exp(-1)))])
def test_at_the_start_the_output_is_the_base_s_own(
    family: str, share: float, tiny: Any, seat: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # `up` is 0, so what is left is sigmoid(1) of the last state. A decoder's norm takes every factor out of it (but for
    # its epsilon); where an encoder's last layer ends with its norm, the factor stays.
    beside, plain = Pack(base_of(tiny(family))), Pack(load_base(BaseSpec(tiny(family), dtype="float64")))
    beside.join(side(seat))
    plain.join(seat("a", rank=4))
    ours, own = Pooled(beside, monkeypatch).states, Pooled(plain, monkeypatch).states
    assert len(ours) == len(own) > 0
    for mine, theirs in zip(ours, own, strict=True):
        torch.testing.assert_close(mine, share * theirs, rtol=1e-4, atol=1e-6)


def test_parameters_are_counted_one_by_one(tiny: Any, seat: Any) -> None:
    pack = Pack(base_of(tiny("llama"), dtype="float32"))
    pack.join(side(seat))
    hidden, width, inner, rank, layers, classes = 64, 16, 32, 4, 2, 2
    down = (layers + 1) * (rank * hidden + width * rank)
    layer = 3 * width * width + width * width + 3 * inner * width + 2 * width + 1
    trainable = down + layers * layer + width + hidden * width + 1 + classes * hidden
    progress = pack.progress("a")
    assert progress.trainable == trainable
    assert progress.total == trainable + pack.base.parameters
    # What a plan counts with, where no torch is.
    counted = QstConfig(**SMALL).side_parameters(layers=layers, hidden=hidden, inner=128)
    assert counted + classes * hidden == trainable


class Forwards:
    """Counts the sequences that the base runs on."""

    def __init__(self, base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sequences = 0
        run = base._states

        def counting(layout: Layout, *rest: Any) -> Tensor:
            self.sequences += sum(len(rows.examples) for rows in layout.rows)
            return run(layout, *rest)

        monkeypatch.setattr(base, "_states", counting)


def test_the_base_runs_once_for_all_that_read_the_same(tiny: Any, seat: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pack = Pack(base_of(tiny("bert"), dtype="float32"))
    for number in range(4):
        pack.join(side(seat, f"{number}", learning_rate=1e-3 * (number + 1)))
    forwards = Forwards(pack.base, monkeypatch)
    losses(pack, 5)
    assert forwards.sequences == 5 * 8


def test_the_base_does_not_run_again_on_what_is_kept(tiny: Any, seat: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, examples, dev = tiny("bert"), 40, 21
    keeping, forgetting = (Pack(base_of(folder, kept=kept, dtype="float32")) for kept in (1 << 24, 0))
    forwards = Forwards(keeping.base, monkeypatch)
    for pack in (keeping, forgetting):
        pack.join(side(seat, "a", seed=1))
        pack.join(side(seat, "b", seed=2))
    found, found_dev = losses(keeping, 10), keeping.evaluate(["a", "b"])
    assert forwards.sequences == examples + dev
    again, again_dev = losses(forgetting, 10), forgetting.evaluate(["a", "b"])
    for name in ("a", "b"):
        # A sequence's states are rounded as its forward's shapes have it.
        np.testing.assert_allclose(found[name], again[name], atol=1e-5)
        np.testing.assert_allclose(found_dev[name]["dev"].logits, again_dev[name]["dev"].logits, atol=1e-5)


def test_what_is_kept_stays_within_its_bytes() -> None:
    kept, row = Kept(10 * 4 * 6), torch.zeros(2, 3, 1)
    keys = [(bytes([number]), b"") for number in range(15)]
    for key in keys:
        if kept.get(key) is None:
            kept.put(key, row)
    assert len(kept) == 10
    assert [kept.get(key) is not None for key in keys] == [True] * 10 + [False] * 5
    # Other seats: what they read stays, what only the old ones read makes room.
    kept.other_seats()
    assert kept.get(keys[0]) is not None
    for key in keys[10:]:
        kept.put(key, row)
    assert len(kept) == 10
    assert all(kept.get(key) is not None for key in (keys[0], *keys[10:]))


@pytest.mark.parametrize(("what", "steps"), [("weights", 1), ("rate", 2)])
def test_a_neighbour_that_breaks_changes_no_bit(what: str, steps: int, tiny: Any, seat: Any) -> None:
    def run(*, broken: bool) -> list[float]:
        pack = Pack(base_of(tiny("llama"), dtype="float32"))
        rate = 1e30 if broken and what == "rate" else 1e-3
        for spec in (side(seat, "a"), side(seat, "b", learning_rate=rate), side(seat, "c", learning_rate=2e-3)):
            pack.join(spec)
        if broken and what == "weights":
            pack._seats["b"].row.theta.fill_(float("nan"))
        found = losses(pack, steps)
        assert bool(pack._seats["b"].diverged) == broken
        # The broken one is not computed any more: the other run's is taken out too, so that shapes are the same.
        pack.leave("b")
        more = losses(pack, 4)
        return [*found["a"], *found["c"], *more["a"], *more["c"]]

    assert run(broken=False) == run(broken=True)


def test_a_seat_goes_on_elsewhere_as_if_it_had_stayed(tiny: Any, seat: Any) -> None:
    stays = Pack(base_of(tiny("bert"), dtype="float32"))
    stays.join(side(seat))
    losses(stays, 7)
    state = stays.state("a")
    moved = Pack(base_of(tiny("bert"), kept=1 << 20, dtype="float32"))
    moved.join(side(seat), state)
    assert losses(moved, 5) == losses(stays, 5)


def test_it_learns_beside_a_base_in_four_bits(tiny: Any, seat: Any) -> None:
    spec = side(seat, quantise=True, classes=2, examples=64, learning_rate=1e-2)
    pack = Pack(base_of(tiny("llama"), kept=1 << 24, dtype="float32", quantisation=spec.tuner.quantisation))
    pack.join(spec)
    found = losses(pack, 200)["a"]
    assert np.mean(found[-8:]) < found[0] / 2


def test_other_seats_are_refused(tiny: Any, seat: Any) -> None:
    pack = Pack(base_of(tiny("bert"), dtype="float32"))
    with pytest.raises(SeatError, match="differ about what is trained"):
        pack.join(seat("l"))
    with pytest.raises(TunerError, match="down_rank 65 is above the 64 features"):
        pack.join(side(seat, down_rank=65))
    with pytest.raises(SeatError, match="differ about what is trained"):
        Pack(load_base(BaseSpec(tiny("bert")))).join(side(seat))


def asking(name: str, **fields: Any) -> SeatSpec:
    train = TrainConfig(batch_size=8, epochs=20, learning_rate=1e-2, max_new_tokens=9, **fields)
    head = HeadSpec("generation", stop=(STOP,))
    return SeatSpec(name, QstConfig(**SMALL), train, head, Sums(40), {"dev": Sums(17, 99)})


def test_an_answer_is_that_of_whole_forwards(generating: Any) -> None:
    pack = Pack(base_of(generating("llama"), language=True))
    for spec in (asking("a"), asking("b", seed=5)):
        pack.join(spec)
    first = losses(pack, 30)["a"]
    assert first[-1] < first[0]
    dev = pack.evaluate(["a", "b"])
    for name in ("a", "b"):
        seat, found = pack._seats[name], dev[name]["dev"].answers
        assert seat.side is not None
        assert isinstance(seat.head, LanguageHead)
        assert len({tuple(answer) for answer in found}) > 1
        for index, answer in enumerate(found):
            example = seat.spec.eval_sets["dev"][index]
            ids = list(example.ids[: int(example.label)])
            for word in [*answer, *([3] if len(answer) < 9 else [])]:
                rows = Rows([Example(np.array(ids, np.int32), None, 0.0)], None)
                with torch.no_grad():
                    state = pack.base.pooled(pack.base.laid_out([rows]), (seat.side,), training=False)
                assert seat.head.words(state).tolist() == [word]
                ids.append(int(word))


def test_what_may_be_kept_is_foreseen(tiny: Any, seat: Any) -> None:
    peaks = []
    for kept in (0, 64 << 20):
        pack = Pack(base_of(tiny("bert"), kept=kept, dtype="float32"))
        pack.join(side(seat))
        peaks.append(pack.footprint.fixed)
    # The rest is the process's own, which other tests share.
    assert peaks[1] - peaks[0] == pytest.approx(64 << 20, abs=16 << 20)
