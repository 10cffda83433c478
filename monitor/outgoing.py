"""Messages about changed incidents, made for the same commit as the change."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from alerts.incidents import Incident, IncidentBook
from alerts.messages import changes, message_body, message_key
from alerts.policy import Policy, Route
from alerts.render import Owner
from monitor.config import Config, WebhookReceiver
from monitor.state.unit import CommitUnit, OutboxRow

OutboxWriter = Callable[[Incident | None, Incident, float], list[OutboxRow]]
"""(incident before, incident now, time of the commit) → messages."""


Told = set[tuple[str, str]]
"""(receiver, id) of incidents that are open and that the receiver was told of."""


def no_messages(old: Incident | None, new: Incident, at: float) -> list[OutboxRow]:
    """Nobody is told."""
    return []


def write_outbox(
    policy: Policy,
    receivers: Sequence[str],
    told: Told,
    old: Incident | None,
    new: Incident,
    at: float,
    owner: Owner = lambda incident: None,
) -> list[OutboxRow]:
    """The messages to each of the receivers; whoever is told of an incident is added to `told`.

    The first that a receiver hears of an incident is that it was opened: also one that was added, or whose route was,
    while the incident was open. Of one that it would hear of only now that it is resolved, it hears nothing.
    """
    rows = []
    for receiver in receivers:
        if not policy.sends(receiver, new, new.severity_max):
            continue
        knows = (receiver, new.id) in told
        missed = not knows and old is not None and policy.sends(receiver, old, old.severity_max)
        if missed and new.status == "resolved":
            continue
        for change in changes(old if knows else None, new):
            told.add((receiver, new.id))
            key = message_key(receiver, change)
            rows.append(OutboxRow(key, receiver, new.id, change.event, message_body(change, at, owner(new)), at))
    return rows


def tell_changes(book: IncidentBook, unit: CommitUnit, outbox: OutboxWriter) -> None:
    """Move the changed incidents of the book, and the messages about them, into the unit."""
    for old, new in book.take_transitions():
        unit.incidents.append(new)
        unit.outbox += outbox(old, new, unit.at)


def policy_of(config: Config) -> Policy:
    """The routes as configured."""
    return Policy(tuple(Route(r.targets, r.severity, r.kinds, r.models) for r in config.routes))


def owner_of(config: Config) -> Owner:
    """Who owns the model of an incident, as configured."""
    return lambda i: None if i.model is None else config.model_settings(i.model, i.tenant).owner


def outbox_writer(config: Config, told: Iterable[tuple[str, str]] = ()) -> OutboxWriter:
    """Makes the messages to webhooks; `told` is who was told of which open incident.

    Alertmanagers are reconciled and get none, nor does anyone while `notify` is off.
    """
    names = tuple(webhooks(config))
    return partial(write_outbox, policy_of(config), names, set(told), owner=owner_of(config)) if names else no_messages


def webhooks(config: Config) -> dict[str, WebhookReceiver]:
    """Receivers of type webhook, by name; none while `notify` is off."""
    found = {name: r for name, r in config.receivers.items() if isinstance(r, WebhookReceiver)}
    return found if config.notify else {}
