"""`modelwarden erase`: forget who is behind a pseudonym."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from monitor.cli.acts import act
from monitor.cli.failures import CommandError, say
from monitor.cli.options import ConfigFile, need_config
from monitor.cli.output import print_line

if TYPE_CHECKING:
    from monitor.config import Config
    from monitor.state.store import StateStore


def erase(
    clients: Annotated[
        list[str], typer.Argument(metavar="CLIENT...", help="In clear, or the pseudonym (c_...) that lists show.")
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    by: Annotated[str | None, typer.Option(help="Who erases; default the user name.")] = None,
    config: ConfigFile = None,
) -> None:
    """Erase the identity of clients, for good.

    Their encrypted identifiers are deleted and never stored again, each with an audit row. What stays is
    pseudonymous: counts, detector state and incidents under the pseudonym, which nobody can lead back to them
    without knowing the identifier and the key. They stay because alarms and false-alarm budgets rest on them. The
    log in Kafka and backups are not touched. The active daemon does it; without one, this command does.
    """
    settings = need_config(config)
    from monitor.cli.stored import stored
    from monitor.commands import ERASE

    with stored(settings) as store:
        found = [name for client in clients for name in _known(settings, store, client)]
        known = list(dict.fromkeys(found))
        for name in known:
            say(f"{name}: {store.identities([name])[name].domain}, to be erased")
        if not yes and not typer.confirm("This cannot be undone. Erase?", err=True):
            raise CommandError("nothing was erased")
        for name in known:
            print_line(act(store, settings, by, ERASE, {"pseudonym": name}))
    say("Counts, detector state and incidents stay, under pseudonyms that can no longer be resolved.")


def _known(config: Config, store: StateStore, client: str) -> Sequence[str]:
    """The stored pseudonyms of a client: of its identifier as client, principal and address, or itself."""
    from alerts.render import PSEUDONYM

    names = [client] if PSEUDONYM.fullmatch(client) else _pseudonyms(config, store, client)
    known = store.identities(names)
    if not known:
        raise CommandError(
            f"{client}: no such identity is stored: it was erased, has expired or was never seen. Nothing was erased."
        )
    return [name for name in names if name in known]


def _pseudonyms(config: Config, store: StateStore, client: str) -> list[str]:
    from monitor.cli.stored import KEY_ID, identity_key
    from monitor.intake.identity import Pseudonyms, key_id

    key = identity_key(config)
    if key is None:
        raise CommandError(f"{client}: without the identity key its pseudonym is not known; give the pseudonym (c_...)")
    if store.setting(KEY_ID) not in (None, key_id(key)):
        raise CommandError("the identity key is not the one of this database; restore the old key file")
    return list(Pseudonyms(key).known_as(client).values())
