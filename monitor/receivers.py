"""From the `receivers:` of the configuration to what delivers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from alerts.sinks.webhook import Webhook
from monitor.clock import Clock
from monitor.config import AlertmanagerReceiver, Config
from monitor.delivery import AlertmanagerTarget
from monitor.intake.identity import Pseudonyms, UnresolvableError
from monitor.metrics import Metrics
from monitor.outgoing import webhooks
from monitor.state.store import StateStore
from monitor.webhooks import WebhookWorker


def alertmanagers(config: Config) -> list[AlertmanagerTarget]:
    """Receivers of type alertmanager; none while `notify` is off."""
    if not config.notify:
        return []
    return [
        AlertmanagerTarget(name, tuple(str(u) for u in receiver.urls))
        for name, receiver in config.receivers.items()
        if isinstance(receiver, AlertmanagerReceiver)
    ]


def webhook_workers(
    config: Config, store: StateStore, metrics: Metrics, clock: Clock, key: bytes
) -> list[WebhookWorker]:
    """A worker for each receiver of type webhook, so that one that hangs holds up no other."""
    made = []
    for name, receiver in webhooks(config).items():
        secret = None if receiver.secret_file is None else receiver.secret_file.path
        webhook = Webhook(receiver.url, secret, bool(receiver.allow_private))
        reveal = identities(store, key) if receiver.identities == "clear" else None
        made.append(WebhookWorker(name, webhook, store, metrics, clock, reveal))
    return made


def identities(store: StateStore, key: bytes) -> Callable[[Iterable[str]], Mapping[str, str]]:
    """Looks identifiers up: pseudonym → identifier, for those that are known."""
    names = Pseudonyms(key)

    def reveal(pseudonyms: Iterable[str]) -> Mapping[str, str]:
        known = {}
        for name, row in store.identities(sorted(set(pseudonyms))).items():
            try:
                known[name] = names.resolve(name, row.ciphertext)
            except UnresolvableError:
                continue
        return known

    return reveal
