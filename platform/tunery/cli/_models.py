"""What the commands on models share."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from storage.promotions import Promotion

ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="NAME (its champion), NAME@ALIAS, NAME/VERSION, a trial (RUN/STUDY/TRIAL; RUN/TRIAL where the run has "
        "one study), or an adapter's folder.",
        show_default=False,
    ),
]
NameArgument = Annotated[str, typer.Argument(metavar="MODEL", help="A registered model's name.", show_default=False)]
AliasOption = Annotated[str, typer.Option("--alias", metavar="NAME", help="The alias to move.")]
WhyOption = Annotated[str, typer.Option("--why", metavar="TEXT", help="A reason, kept in the history.")]
DeviceOption = Annotated[
    str | None,
    typer.Option("--device", metavar="NAME", help="cpu, cuda, cuda:1, ...", show_default="the GPU where there is one"),
]
BatchOption = Annotated[int, typer.Option("--batch-size", min=1, max=4096, help="Inputs a forward pass.")]


def quiet_libraries() -> None:
    """Call before what is heavy is imported: bitsandbytes tells everyone of a faster kernel that nobody asked for."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def moment(at_ms: int) -> str:
    """A time as documents hold it: ISO 8601, UTC, seconds."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def decision(move: Promotion) -> dict[str, Any]:
    """One decision about an alias, as documents hold it."""
    return {
        "model": move.model,
        "alias": move.alias,
        "verdict": move.verdict,
        "from_version": move.from_version,
        "to_version": move.to_version,
        "objective": move.objective,
        "from_value": move.from_value,
        "to_value": move.to_value,
        "at": moment(move.at_ms),
        "by": move.by,
        "why": move.why,
    }
