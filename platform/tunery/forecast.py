"""The memory of a plan's packs beside the machine's, by estimate: nothing is loaded or contacted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tuners.config import TunerConfig
from tuners.needs import (
    ACTIVATIONS,
    LIBRARIES,
    MOST_TOKENS,
    NF4_BYTES,
    PROBE_TOKENS,
    SLACK,
    SLACK_OF_DIFFERING,
    Change,
    Need,
    advice,
    row_bytes,
)
from tunery.plan import Estimate, Plan, Study
from tunery.spec.base_model import Shape, shape_of

PROCESS_BYTES = 580 << 20
"""Of a pack's process on a CPU with its libraries loaded and no base: Python, torch, transformers, Ray. Measured."""
_DEFAULT_RANK = 8


@dataclass(frozen=True)
class Forecast:
    """One worker of the pack that takes most of what it may take."""

    study: str
    need: Need
    limit: int | None
    """Bytes that it may take; None: not known here."""
    at_once: int
    """Packs of all bases that share the memory."""

    @property
    def changes(self) -> tuple[Change, ...]:
        """What would fit, the cheapest first; empty where it fits as it is."""
        return advice(self.need, self.limit) if self.limit is not None else ()

    @property
    def fits(self) -> bool | None:
        """Perhaps with smaller forwards; None: not known here."""
        return None if self.limit is None else self.need.least <= self.limit

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "study": self.study,
            "peak_bytes": self.need.peak,
            "least_bytes": self.need.least,
            "limit_bytes": self.limit,
            "fits": self.fits,
            "advice": [{"change": each.what, "cost": each.cost, "bytes": each.bytes} for each in self.changes],
        }


def forecast(plan: Plan, *, at_once: int, packs: int, seats: int, limits: Mapping[str, int] | None) -> Forecast | None:
    """Of a plan with packs of so many seats, `at_once` of all, of which `packs` may be fewer; None: it cannot be told.

    `limits` has for each study the bytes that a worker may take which trains it; None where they are not known here.
    """
    needs = {
        study.name: need
        for study, estimate in zip(plan.studies, plan.estimates, strict=True)
        if (need := _need(plan, study, estimate, packs=packs, seats=seats)) is not None
    }
    if not needs:
        return None
    name = max(needs, key=lambda study: needs[study].peak - (limits[study] if limits else 0))
    return Forecast(name, needs[name], limits[name] if limits else None, at_once)


def _need(plan: Plan, study: Study, estimate: Estimate, *, packs: int, seats: int) -> Need | None:
    shape, resources, tuner = shape_of(study.model.id), plan.spec.resources, study.tuner
    if shape is None or estimate.base_bytes is None or estimate.seat_parameters is None:
        return None
    gpu = resources.gpus_per_worker > 0
    device = "cuda" if gpu else "cpu"
    seats = 1 if tuner.trains_base else seats
    # The longest sequence is not known without the rows: one that fills `max_length` is assumed to be there.
    longest = study.train.max_length
    length = min(study.definition.tokens_per_example, longest)
    tokens = length * study.train.batch_size * study.train.accumulation
    width = 2 if gpu or study.model.dtype == "bfloat16" else 4
    kept = _kept(shape, study, length=length, width=width, gpu=gpu)
    # As they come, and laid out for the networks that read them.
    states = 2 * (shape.layers + 1) * shape.hidden * width if tuner.trains_beside else 0
    checkpoints = not tuner.trains_beside  # nothing goes back through the base there
    recomputed = shape.layers * shape.hidden * width + kept / shape.layers if checkpoints else kept
    slack = (SLACK if seats * tokens <= longest else SLACK_OF_DIFFERING)[device]
    base = -(-estimate.base_bytes // (1 if tuner.trains_base else resources.workers))
    whole = tuner.quantisation == "none" or tuner.dequantised_once
    trained = estimate.seat_parameters
    plain, quantised = (
        row_bytes(trained, count, device, alone=tuner.trains_base, copied=tuner.trains_beside) for count in (0, trained)
    )
    return Need(
        process=PROCESS_BYTES + LIBRARIES["cpu"] if not gpu else 0,
        base=base,
        seat=quantised if study.train.quantises_moments else plain,
        token=slack * (recomputed if resources.gradient_checkpointing else kept) + states,
        tokens=tokens,
        longest=longest,
        forward=min(MOST_TOKENS[device], max(PROBE_TOKENS, ACTIVATIONS // shape.activation_bytes)),
        max_length=longest,
        seats=seats,
        packs=packs,
        parameters=shape.parameters,
        recomputed=None if resources.gradient_checkpointing or not checkpoints else slack * recomputed,
        quantised=base - round(shape.linear_parameters * (width - NF4_BYTES) / resources.workers)
        if whole and not tuner.trains_base else None,
        quantised_by=_quantised_by(tuner),
        adapter=row_bytes(_adapter(shape), 0, device) if tuner.trains_base else None,
        seat_8bit=quantised,
        rank=getattr(tuner, "rank", None),
        kept=tuner.kept_bytes,
    )  # fmt: skip


def _quantised_by(tuner: TunerConfig) -> str:
    if tuner.dequantised_once:
        return "tuner.dequantise: step"
    return "tuner.quantise: true" if tuner.trains_beside else "tuner.method: qlora"


def _kept(shape: Shape, study: Study, *, length: float, width: int, gpu: bool) -> float:
    tuner = study.tuner
    if tuner.trains_beside:
        values = tuner.side_values(layers=shape.layers, hidden=shape.hidden, inner=shape.inner)
        return float(values) * width
    targets = getattr(tuner, "target_modules", ()) or shape.default_targets
    named = tuple(shape.linears()) if isinstance(targets, str) else tuple(targets)
    return shape.kept_bytes(
        None if tuner.trains_base else named,
        length=length,
        width=width,
        dropout=bool(getattr(tuner, "dropout", 0.0)),
        gpu=gpu,
    )


def _adapter(shape: Shape) -> int:
    """Parameters of LoRA's default."""
    ends = [end for name in shape.default_targets for end in shape.linears()[name]]
    return _DEFAULT_RANK * shape.layers * sum(map(sum, ends))
