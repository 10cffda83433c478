"""What can go wrong with the state store, by what the caller should do about it."""

from __future__ import annotations


class StoreError(Exception):
    """The store cannot do this, and trying again will not help. The message names the place and the mend."""


class StoreUnavailable(StoreError):
    """The database did not answer, is full, or is locked. Nothing was written, or (a connection lost during COMMIT)
    everything was: commit the same unit again, it is written at most once."""


class Fenced(StoreError):
    """The lease belongs to somebody else by now. Nothing was written; stop writing and stand by."""


class Conflict(StoreError):
    """The stored offset or command is not what the unit expects. Nothing was written; load the state again."""


class SchemaError(StoreError):
    """The tables are not those of this version."""


class DaemonRunning(StoreError):
    """Another daemon has this SQLite database open."""
