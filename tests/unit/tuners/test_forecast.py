"""What a plan estimates without loading anything, beside what the engine measures."""

from __future__ import annotations

import json
from typing import Any

import pytest

from storage.errors import StorageError
from storage.models import model_folder
from tuners.config import TunerConfig
from tuners.engine import Base, BaseSpec, Pack
from tuners.full.config import Config as FullConfig
from tuners.lora.config import Config as LoraConfig
from tuners.qst.config import Config as QstConfig
from tunery.forecast import forecast
from tunery.plan import Plan, compile_plan
from tunery.spec import parse_spec
from tunery.spec.base_model import shape_of

TOKEN_TOLERANCE = 1 / 6
"""Of what a token keeps: it depends on which attention a length is computed with, and on how rows fill a bucket."""
PEAK_TOLERANCE = 0.15
"""Of a pack's peak, most of which is libraries and base."""


@pytest.mark.parametrize("length", [14, 60])
@pytest.mark.parametrize(
    "tuner",
    [{}, {"target_modules": "all-linear"}, {"target_modules": "all-linear", "dropout": 0.1}, {"config": FullConfig}],
    ids=["default targets", "all-linear", "with dropout", "full"],
)
@pytest.mark.parametrize("family", ["bert", "llama", "qwen2"])
def test_what_a_token_keeps_is_estimated_within_a_sixth(
    tiny: Any, seat: Any, sentences: Any, family: str, tuner: dict[str, Any], length: int
) -> None:
    folder, config = tiny(family, num_hidden_layers=6), tuner.get("config", LoraConfig)
    shape = shape_of(folder)
    assert shape is not None
    pack = Pack(Base.load(BaseSpec(folder, trained=config is FullConfig)))
    rows = sentences(40, longest=length)
    rows._rows = [rows._rows[int(rows.lengths.argmax())]] * 40  # all of one length: padding is another matter
    rows.lengths[:] = len(rows._rows[0])
    pack.join(seat("a", train_set=rows, batch_size=8, **tuner))
    need = pack.need
    assert need is not None
    measured = pack._room._loads["a"].token_bytes
    targets = tuner.get("target_modules", shape.default_targets)
    estimated = shape.kept_bytes(
        None if config is FullConfig else tuple(shape.linears()) if targets == "all-linear" else targets,
        length=float(rows.lengths[0]),
        dropout="dropout" in tuner,
    )
    assert estimated == pytest.approx(measured, rel=TOKEN_TOLERANCE)


def plan_of(folder: str, tuner: TunerConfig) -> Plan:
    spec = {
        "apiVersion": "tunery/v1",
        "kind": "Sweep",
        "name": "x",
        "model": {"id": folder, "dtype": "float32"},
        "tasks": ["cola"],
        "tuner": {"method": tuner.method, **tuner.model_dump(mode="json", exclude_unset=True)},
        "train": {"batch_size": 32, "max_length": 64},
    }
    return compile_plan(parse_spec(json.dumps(spec), file="x.json"))


def close(measured: float | None, tolerance: float) -> Any:
    return None if measured is None else pytest.approx(measured, rel=tolerance)


@pytest.mark.models
@pytest.mark.parametrize("seats", [1, 4])
@pytest.mark.parametrize("tuner", [LoraConfig(rank=16), QstConfig(reduction=8)], ids=["lora", "qst"])
def test_a_packs_parts_are_estimated_as_the_engine_foresees_them(
    seat: Any, sentences: Any, tuner: TunerConfig, seats: int
) -> None:
    try:
        folder = model_folder("embedded:minilm")
    except StorageError as missing:
        pytest.skip(str(missing))
    plan = plan_of(folder, tuner)
    found = forecast(plan, at_once=1, packs=1, seats=seats, limits={study.name: 8 << 30 for study in plan.studies})
    assert found is not None
    assert found.fits
    spec = BaseSpec(folder, quantisation=tuner.quantisation, beside=tuner.trains_beside, kept_bytes=tuner.kept_bytes)
    pack = Pack(Base.load(spec))
    mean = found.need.tokens / 32
    for number in range(seats):
        rows = sentences(40, longest=2 * round(mean) - 3)
        options = tuner.model_dump(exclude_unset=True)
        pack.join(seat(str(number), config=type(tuner), train_set=rows, batch_size=32, **options))
    measured = pack.need
    assert measured is not None
    # Other processes' libraries are not a pack's: here they are pytest's, and Ray's are not there.
    assert found.need.base == pytest.approx(measured.base, rel=0.01)
    assert found.need.seat == pytest.approx(measured.seat, rel=0.25), "the engine rounds rows up by a quarter at most"
    assert (found.need.forward, found.need.kept) == (measured.forward, measured.kept)
    peaks = [need.peak - need.process + found.need.process for need in (found.need, measured)]
    assert peaks[0] == pytest.approx(peaks[1], rel=PEAK_TOLERANCE)
    assert found.need.token == pytest.approx(measured.token, rel=2 * TOKEN_TOLERANCE)
    assert found.need.quantised == close(measured.quantised, 0.02)
    assert found.need.recomputed == close(measured.recomputed, 2 * TOKEN_TOLERANCE)
