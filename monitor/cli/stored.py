"""The database that the configuration names, and the identities in it where the key is at hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from monitor.assembly import key_path
from monitor.cli.failures import CommandError, say
from monitor.config import Config
from monitor.intake.identity import (
    IdentityKeyError,
    Pseudonyms,
    UnresolvableError,
    derive_key,
    key_id,
    load_or_create_key,
)
from monitor.state.store import StateStore, open_store

KEY_ID = "identity_key_id"


@contextmanager
def stored(config: Config) -> Iterator[StateStore]:
    """The store, open; acts can be audited when the identity key is at hand."""
    key = identity_key(config)
    audit_key = None if key is None else derive_key(key, "audit")
    store = open_store(config.store.url.url, group_of(config), audit_key=audit_key)
    try:
        yield store
    finally:
        store.close()


def live_incident(store: StateStore, incident: str) -> None:
    """CommandError unless there is such an incident and it is not resolved."""
    found = store.incident(incident)
    if found is None:
        raise CommandError(f"There is no incident {incident}.")
    if found.status == "resolved":
        raise CommandError(f"{incident} is resolved already.")


def group_of(config: Config) -> str:
    """The group whose rows are shown."""
    return "modelwarden" if config.kafka is None else config.kafka.group


def identity_key(config: Config) -> bytes | None:
    """The identity key, None where it may not be read or does not exist. It is never made here."""
    path = key_path(config)
    try:
        return None if path is None else load_or_create_key(path, create=False)
    except IdentityKeyError:
        return None


def resolver(config: Config, store: StateStore, pseudonyms: Iterable[str]) -> Callable[[str], str]:
    """Pseudonym → identifier for these pseudonyms; whatever cannot be resolved stays as it is."""
    wanted = sorted(set(pseudonyms))
    key = identity_key(config) if wanted else None
    known: dict[str, str] = {}
    if key is not None and store.setting(KEY_ID) not in (None, key_id(key)):
        say("The identity key is not the one of this database: clients are shown as pseudonyms.")
    elif key is not None:
        reader = Pseudonyms(key)
        for name, row in store.identities(wanted).items():
            try:
                known[name] = reader.resolve(name, row.ciphertext)
            except UnresolvableError:
                continue
    return lambda name: known.get(name, name)
