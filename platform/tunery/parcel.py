"""What a job carries to a cluster: the validated plan as data, and who has made it. No code and no secret.

A job's metadata are texts, which Ray keeps in its own store and hands to the job in one environment variable. Linux
takes no variable of more than 128 KiB, so the plan is compressed and its size bounded.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from tunery.errors import ConflictError, InputError

MOST_BYTES = 96 * 1024
"""Of a plan as it travels; the rest of the variable is left to what Ray and a place put beside it."""

_RUN, _VERSION, _PLAN = "tunery.run", "tunery.version", "tunery.plan"
_OFFLINE, _RESUME = "tunery.offline", "tunery.resume"
_YES = "yes"


@dataclass(frozen=True)
class Parcel:
    """One run to start, or to let go on."""

    run: str
    plan: bytes
    """JSON of a `tunery.plan.Plan`, whose run id is `run`."""
    version: str
    """Of the tunery that has compiled the plan."""
    offline: bool = False
    """The run is to ask no hub."""
    resume: bool = False
    """It goes on also where it has failed or was stopped."""

    def metadata(self) -> dict[str, str]:
        """As it travels. InputError where the plan is too large."""
        packed = base64.b64encode(zlib.compress(self.plan, 9)).decode()
        if len(packed) > MOST_BYTES:
            raise InputError(
                f"the plan of {self.run} takes {len(packed) / 1024:.0f} KiB compressed, and a job carries at most "
                f"{MOST_BYTES // 1024} KiB: make several specs of it, with fewer tasks or cells of the matrix each"
            )
        given = {_RUN: self.run, _VERSION: self.version, _PLAN: packed}
        return given | ({_OFFLINE: _YES} if self.offline else {}) | ({_RESUME: _YES} if self.resume else {})

    @classmethod
    def of(cls, metadata: Mapping[str, str]) -> Parcel:
        """What has travelled. InputError where it is no parcel or was damaged."""
        try:
            packed = metadata[_PLAN]
            run, version = metadata[_RUN], metadata[_VERSION]
        except KeyError as error:
            raise InputError(
                f"this is no job of tunery's: its metadata lack {error}; `platform submit` sends one"
            ) from None
        try:
            plan = zlib.decompress(base64.b64decode(packed, validate=True))
        except (binascii.Error, zlib.error) as error:
            raise InputError(
                f"the plan that the job of run {run} carries is damaged: {error}; send it again"
            ) from error
        return cls(run, plan, version, metadata.get(_OFFLINE) == _YES, metadata.get(_RESUME) == _YES)


def run_of(metadata: Mapping[str, str] | None) -> str | None:
    """The run that a job is of; None where it is none of tunery's."""
    return (metadata or {}).get(_RUN)


def check_version(sent: str, *, here: str) -> None:
    """ConflictError where the plan was made by another tunery than the cluster's, which would read it otherwise."""
    if sent != here:
        raise ConflictError(
            f"the plan was sent by tunery {sent}, and the cluster has tunery {here}: "
            f"install {here} where the command is given, or an image with {sent} on the cluster"
        )
