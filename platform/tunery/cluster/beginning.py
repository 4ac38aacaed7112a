"""What a seat goes on from, or begins with: its newest good checkpoint, else the one that the run begins with."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from storage.checkpoints import Checkpoint, CheckpointStore
from tuners.engine import SeatState
from tunery.begin import Origin, misfits, origin_of
from tunery.cluster.messages import Report, SeatOrder
from tunery.cluster.orders import PackOrder
from tunery.cluster.reports import Counted, read_reports
from tunery.errors import InputError
from tunery.plan import TrialConfig
from tunery.runs import COUNTED, REPORTS, SEAT_STATE, RunFolder


@dataclass
class Beginning:
    """What a seat has when it is taken."""

    state: bytes | None = None
    """The engine's; None: from nothing."""
    reports: list[Report] = field(default_factory=list)
    counted: Counted = field(default_factory=Counted)
    told: tuple[str, ...] = ()
    """For the trial's log."""
    problem: str = ""
    """Why it cannot be taken."""


def origin(order: SeatOrder, trial: TrialConfig, pack: PackOrder, run: Path) -> Origin:
    """What its checkpoints will say that they are of."""
    return Origin.of(
        f"{run.name}/{order.name}",
        trial,
        order.data.task,
        model=pack.model,
        train_set=order.data.train.name,
    )


def beginning(store: CheckpointStore, run: RunFolder, seat: Origin, *, begin: str) -> Beginning:
    """`store`: the seat's own; `begin`: the name of the checkpoint that the run's trials begin with, if they do."""
    own = store.newest()
    if own is not None:
        return Beginning(own.read(SEAT_STATE), read_reports(own.read(REPORTS)), _counted(own), tuple(store.problems))
    if not begin:
        return Beginning(told=tuple(store.problems))
    copies = CheckpointStore(run.begin)
    given = copies.newest()
    if given is None:
        return Beginning(problem="; ".join([f"the run's copy of checkpoint {begin} is not there", *copies.problems]))
    found = _begun(given, seat, begin)
    found.told = (*store.problems, *found.told)
    return found


def _begun(given: Checkpoint, seat: Origin, name: str) -> Beginning:
    try:
        of = origin_of(given, name)
    except InputError as error:
        return Beginning(problem=str(error))
    if wrong := list(misfits(of, seat)):
        return Beginning(problem=f"checkpoint {name} does not fit this trial: {'; '.join(wrong)}")
    state = given.read(SEAT_STATE)
    if of.same_training(seat):
        # Its reports are the other run's: what this one reports it has measured, and its best adapter is its own.
        return Beginning(state, [], _counted(given), (f"goes on from checkpoint {name}, whose configuration it has",))
    anew = SeatState.from_bytes(state).begun_anew().to_bytes()
    return Beginning(
        anew, told=(f"begins with the weights of checkpoint {name}, at step 0: its configuration differs",)
    )


def _counted(checkpoint: Checkpoint) -> Counted:
    # One of an earlier version has only its reports.
    return Counted.from_bytes(checkpoint.read(COUNTED)) if COUNTED in checkpoint.names else Counted()
