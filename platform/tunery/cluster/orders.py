"""What the Ray jobs of a run are started with. Plain frozen data that loads nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import ray

from storage.stores import Place
from tuners.config import Quantisation
from tunery.cluster.messages import StudyData
from tunery.cluster.placement import Resources as Resources
from tunery.cluster.remote_desk import RemoteDesk
from tunery.plan import Study
from tunery.spec.types import ModelSpec


@dataclass(frozen=True)
class Prepared:
    """A study's data, perhaps still on its way: what waits for it can start meanwhile."""

    ref: ray.ObjectRef[StudyData]

    def get(self) -> StudyData:
        """Raises what the preparation raised."""
        return ray.get(self.ref)


@dataclass(frozen=True)
class PackOrder:
    """A pack."""

    pack: str
    base_key: str
    model: ModelSpec
    quantisation: Quantisation
    dequantised_once: bool
    trained: bool
    """The one seat trains the base's own weights."""
    beside: bool
    """Seats train networks beside the base, which runs forward only."""
    kept_bytes: int
    """Of its states, then."""
    language: bool
    """Some task on this base has answers: the output layer is needed."""
    capacity: int
    """Most seats at once."""
    gradient_checkpointing: bool
    threads: int
    """Of torch, on a CPU."""
    memory: int
    """Bytes that a worker may take of the machine's."""
    packs: int
    """How many share the memory; 1 where fewer would not leave each more."""
    run: Path
    store: Place
    """Where the run's checkpoints are."""
    desk: RemoteDesk
    our_ray: bool
    """Ray is of this run, and ends with it."""
    weights: Path | None = None
    """A folder of the node's own disk, from whose copy the base is loaded."""
    begin: str = ""
    """Name of the checkpoint that the run's trials begin with, of which the run's folder has a copy; '': none."""
    halvings: int = 0
    """Of the tokens of a forward: how often the pack has run out of memory."""


@dataclass(frozen=True)
class StudyOrder:
    """A study."""

    study: Study
    base: str
    """Key of its base: see messages.SeatOrder."""
    data: Prepared
    ledger_url: str
    """Optuna's database."""
    ledger_name: str
    tracking_uri: str
    """MLflow's, whose registry holds the champions that a study may begin with."""
    seats: int
    """Trials at once, of all studies on this base: those with a place in a pack, and those that wait for one."""
    storage_path: Path
    desk: RemoteDesk
