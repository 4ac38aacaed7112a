"""Errors of the places where things are kept."""

from __future__ import annotations


class StorageError(Exception):
    """Something could not be read or written; the message names the place."""


class DataError(StorageError):
    """Rows that cannot be used: the message names file and line, what was got and what is known."""


class ChecksumError(StorageError):
    """A file whose content is not what its manifest says."""


class RegistryError(StorageError):
    """The model registry refused, or does not have what was asked for."""


class MissingSplitError(DataError):
    """A split that the source does not have at all; the message says what it has."""


class NotRegisteredError(RegistryError):
    """No such model, version or alias; the message says what there is."""


class ChampionMovedError(RegistryError):
    """The alias is no longer where it was when the decision to move it was made: decide anew."""


class RegistryUnreachableError(RegistryError):
    """The registry's server or database does not answer."""


class FetchError(StorageError):
    """A model or a data set could not be fetched; the message says why and what to do."""


class NotOnHubError(FetchError):
    """The hub has no such repository, revision or file, or does not show it to this user."""


class HubUnreachableError(FetchError):
    """A hub does not answer, or not with what was asked for."""


class NotFetchedError(FetchError):
    """It is not on this machine's disk, or not as it was fetched; the message says what is missing."""


class StoreUnreachableError(StorageError):
    """A store of checkpoints does not answer, after bounded attempts; the message names it and what was tried."""


class StoreRefusedError(StorageError):
    """A store of checkpoints refuses: a key, a bucket, a certificate. Nothing is gained by trying again."""
