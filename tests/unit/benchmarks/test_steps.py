"""The benchmarks of a step: what is counted is what the engine computes, and the scripts run from end to end."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks import gpu, memory, report, side, throughput
from benchmarks.memory import Memory
from benchmarks.steps import flops, probe
from benchmarks.steps.flops import Attention, Batch, Linear
from benchmarks.steps.lengths import LENGTHS, Lengths
from benchmarks.steps.methods import METHODS
from benchmarks.steps.probe import Speed
from benchmarks.steps.shapes import SHAPES, save, tiny
from tuners.engine import Base, BaseSpec, Pack, gemm, peak_bytes
from tuners.engine import linear as engine_linear

ROOT = Path(__file__).parents[3]
SIXTEEN = Lengths("16 each", (16, 16), batch=4, padded=16, levels=(0.0, 1.0))
"""A seat's tokens lie on the layout's grid: no filler."""


@pytest.fixture(scope="module", params=["minilm", "qwen2.5-1.5b"])
def pack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pack:
    folder = tmp_path_factory.mktemp(request.param)
    save(tiny(SHAPES[request.param].config()), folder, dtype=torch.float32, device=torch.device("cpu"))
    return Pack(Base.load(BaseSpec(str(folder))))


def test_a_step_is_counted_as_the_formula_says() -> None:
    layers = [Linear(8, 4, pooled_only=False, backward=True, adapted=True), Linear(4, 2, True, False, False)]
    batch = Batch(tokens=10, sequences=3, squares=40)
    assert flops.linears(layers, batch) == 2 * 8 * 4 * 10 * 2 + 2 * 4 * 2 * 3
    assert flops.adapters(layers, batch, rank=5) == 3 * 2 * 5 * (8 + 4) * 10
    full, causal = (Attention(2, 8, causal) for causal in (False, True))
    assert flops.attention(full, batch) == 2 * 3 * 4 * 40 * 8
    assert flops.attention(causal, batch) == flops.attention(full, batch) / 2
    total = flops.linears(layers, batch) + flops.adapters(layers, batch, rank=5) + flops.attention(causal, batch)
    assert flops.step(layers, causal, batch, rank=5) == total


def test_the_base_s_products_are_those_that_the_engine_computes(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    config = probe.tuner("lora", rank=4, targets=_targets(pack))
    sets = probe.fill(pack, 2, SIXTEEN, config, batch_size=SIXTEEN.batch)
    layers = probe.layers_of(pack, config)
    computed = 0

    def counted(product: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def of(x_TI: Tensor, weight: Tensor, *more: Any) -> Tensor:
            nonlocal computed
            computed += 2 * x_TI.shape[0] * weight.shape[0] * weight.shape[1]
            return product(x_TI, weight, *more)

        return of

    for name, product in (("linear", gemm.linear), ("back", gemm.back)):
        monkeypatch.setattr(engine_linear, name, counted(product))
    examples, tokens = probe.step(pack)
    assert (examples, tokens) == (2 * 4, 2 * 4 * 16)
    assert flops.linears(layers, probe.mean_batch(sets, SIXTEEN.batch)) == computed
    assert sum(layer.adapted for layer in layers) == 2 * len(config.target_modules)
    for name in pack.seats:
        pack.leave(name)


def _targets(pack: Pack) -> tuple[str, ...]:
    return ("q_proj", "v_proj") if pack.base.causal else ("query", "value")


@pytest.mark.parametrize(("name", "mean"), [("cola", 11.3), ("mnli", 40.1), ("long", 384.0), ("1k", 1024.0)])
def test_lengths_have_the_mean_that_they_are_named_after(name: str, mean: float) -> None:
    drawn = LENGTHS[name].draw(20_000, np.random.default_rng(0))
    assert drawn.mean() == pytest.approx(mean, rel=0.02)
    assert drawn.min() >= LENGTHS[name].tokens[0]
    assert drawn.max() <= LENGTHS[name].padded


def test_the_share_is_of_the_roof_and_the_best_one_counts() -> None:
    def speed(seats: int, share: float) -> Speed:
        return Speed(
            seats, 1, 1, 1, 1, flops_per_s=share * 2e11, roof_flops_per_s=2e11, torch_flops_per_s=1e11, steps=1
        )

    assert "81.0% of the roof, at 4 seats" in throughput.target([speed(1, 0.5), speed(4, 0.81), speed(8, 0.7)])
    of_roof, of_torchs = throughput.target([speed(1, 0.74)]).splitlines()
    assert of_roof.endswith("FAILS")
    assert "148.0% of torch's own products" in of_torchs
    assert of_torchs.endswith("holds")


def test_what_a_further_seat_adds_is_the_device_s_memory_where_there_is_one() -> None:
    one, five = (Memory(seats, 400, peak, None, 600, 8192) for seats, peak in ((1, 500), (5, 580)))
    assert memory.further(five, one) == 20
    first, last = (Memory(seats, 400, 999, device, 100, 8192) for seats, device in ((1, 100.0), (5, 140.0)))
    assert memory.further(last, first) == 10
    *_, row = memory.table([one, five]).splitlines()
    assert [cell.strip() for cell in row.split("|")[5:8]] == ["20.0", "600", "1.03"]


def test_a_process_s_peak_is_its_own() -> None:
    assert 0 < memory.resident_mib() <= peak_bytes(torch.device("cpu")) / 2**20 + 4  # Linux counts in strides


def test_throughput_runs_from_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results")
    small = ["--tiny", "--shapes", "smollm2-6", "--lengths", "cola", "--seconds", "0.01", "--threads", "1"]
    throughput.main([*small, "--methods", *METHODS, "--seats", "1", "2", "--name", "test"])
    cells = json.loads((tmp_path / "results" / "test.json").read_text())["cells"]
    assert [(cell["method"], cell["seats"]) for cell in cells] == [(m, s) for m in METHODS for s in (1, 2)]
    assert all(cell["share"] > 0 for cell in cells)
    assert "of the roof" in capsys.readouterr().err


def test_what_a_step_s_time_goes_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results")
    small = ["--tiny", "--shapes", "smollm2-6", "--lengths", "cola", "--seconds", "0.01", "--threads", "1"]
    throughput.main([*small, "--methods", "lora", "--seats", "1", "--parts", "--name", "test"])
    (cell,) = json.loads((tmp_path / "results" / "test.json").read_text())["cells"]
    shares = [part["share"] for part in cell["parts"]]
    assert shares == sorted(shares, reverse=True)
    assert 0.3 < sum(shares) <= 1.0
    assert "share of a step" in capsys.readouterr().out


@pytest.mark.parametrize("answers", [[], ["--answers"]])
def test_memory_runs_from_end_to_end(answers: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results")
    small = ["--tiny", "--shapes", "smollm2-6", "--lengths", "cola", "--methods", "lora", "--threads", "1"]
    memory.main([*small, "--seats", "2", "--name", "test", *answers])
    (cell,) = json.loads((tmp_path / "results" / "test.json").read_text())["cells"]
    assert cell["peak_mib"] > cell["base_mib"] > 0


BARE = """
import sys
from pathlib import Path
for name in {missing!r}:
    sys.modules[name] = None  # as if it were not installed
from benchmarks import gpu, report
report.RESULTS = Path(sys.argv[1])
gpu.main(["--device", "cpu", "--tiny", "--shapes", "llama-3.2-3b", "--lengths", "cola", "--seats", "1", "2",
          "--seconds", "0.01", "--name", "bare"])
"""
MISSING = "pydantic bitsandbytes ray mlflow optuna datasets evaluate pyarrow sklearn scipy tunery storage"


def test_the_gpu_script_needs_torch_transformers_and_peft_only(tmp_path: Path) -> None:
    code = BARE.format(missing=MISSING.split())
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "results")],
        cwd=ROOT,
        env={"PYTHONPATH": ".", "PATH": "", "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    content = json.loads((tmp_path / "results" / "bare.json").read_text())
    assert content["pydantic"] is False
    cells = {(cell["method"], cell["arm"]): cell for cell in content["cells"]}
    arms = ("hf-padded", "hf-grouped", "ours-1", "ours-2")
    assert all(cells["lora", arm]["examples_per_s"] > 0 for arm in arms)
    quantised = [cells[method, arm]["failed"] for method in ("qlora", "qlora-once") for arm in arms]
    assert quantised == [gpu.NO_BITSANDBYTES] * 8
    assert gpu.NO_BITSANDBYTES in run.stdout


def test_a_ratio_is_taken_in_the_same_place_and_of_what_ran() -> None:
    def cell(arm: str, rate: float, method: str = "lora") -> gpu.Cell:
        place = {"shape": "s", "method": method, "lengths": "cola", "arm": arm}
        speed = {"examples_per_s": rate, "tokens_per_s": 9.0, "tokens_per_step": 5000.0, "step_s": 0.1, "share": 0.4}
        return {**place, **speed, "seats": 16}

    failed = {**cell("hf-padded", 1.0), "failed": "out of memory"}
    del failed["examples_per_s"]
    cells = [cell("hf-grouped", 10.0), cell("hf-grouped", 50.0, "qlora"), failed, cell("ours-16", 90.0)]
    assert gpu.ratio(cells, cells[-1], "hf-grouped") == 9.0
    assert gpu.ratio(cells, cells[-1], "hf-padded") is None
    grouped, share = gpu.targets(cells)
    assert grouped.endswith("holds")
    assert share.endswith("FAILS")
    assert "out of memory" in gpu.table(cells)


def test_side_runs_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results")
    small = ["--tiny", "--seconds", "0.01", "--threads", "1", "--rows", "16", "--batch-size", "8", "--reduction", "4"]
    side.main([*small, "--seats", "1", "16", "--name", "test"])
    (cell,) = json.loads((tmp_path / "results" / "test.json").read_text())["cells"]
    assert [(arm, list(rates)) for arm, rates in cell["examples_per_s"].items()] == [
        (arm, ["1", "16"]) for arm in side.ARMS
    ]
    assert all(rate > 0 for rates in cell["examples_per_s"].values() for rate in rates.values())
