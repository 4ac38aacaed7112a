"""Errors of the tuning methods and the engine."""

from __future__ import annotations


class TunerError(Exception):
    """A configuration that cannot be trained on this base; the message says what would fit."""


class SeatError(TunerError):
    """A seat that cannot join, or is not there."""


class NoRoomError(SeatError):
    """A seat that does not fit into a pack's memory beside the seats that are there."""


class ExportError(TunerError):
    """An adapter or a state that cannot be written, or does not read back as it was."""
