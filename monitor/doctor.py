"""What the daemon depends on, tried one by one. Nothing is written, sent or made."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit
from urllib.request import url2pathname

from monitor.config import AlertmanagerReceiver, Config, WebhookReceiver
from monitor.printable import one_line

DISTRIBUTION: Final = "modelwarden"
PACKAGES: Final = ("monitor", "alerts", "detectors", "migrations")
OLDEST: Final = (3, 11)
TIMEOUT: Final = 5.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One dependency: whether it is sound, what was seen and, where it is not, what mends it."""

    check: str
    ok: bool
    detail: str
    mend: str = ""

    def as_dict(self) -> dict[str, Any]:
        """As JSON shows it."""
        return asdict(self)


def examine_program() -> Iterator[Finding]:
    """What needs no configuration: Python, packages, checksums."""
    yield _python(sys.version_info[:3])
    yield _packages(Path(__file__).resolve().parents[1], _installed_at())
    yield _crc32c()


def examine(config: Config) -> Iterator[Finding]:
    """What the configuration points to. A check that breaks in a way nobody thought of is a finding as well."""
    checks: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
        ("identity key", lambda: _key(config)),
        ("database", lambda: _database(config)),
        ("kafka", lambda: _kafka(config)),
        ("receivers", lambda: _receivers(config)),
        ("references", lambda: _references(config)),
    ]
    for name, check in checks:
        try:
            yield from check()
        except Exception as error:
            yield Finding(name, False, f"{type(error).__name__}: {_text(error)}", "Correct what the message names.")


# --- the program ---------------------------------------------------------------------------------------------------


def _python(version: Sequence[int]) -> Finding:
    text = ".".join(map(str, version))
    mend = f"Install Python {'.'.join(map(str, OLDEST))} or later and ModelWarden in an environment of it."
    return Finding("python", True, text) if tuple(version) >= OLDEST else Finding("python", False, text, mend)


def _packages(root: Path, installed: Path | None) -> Finding:
    """Our packages have common names: all must come from one place, the one the distribution is installed at."""
    mend = "Install ModelWarden in a virtual environment of its own, and leave PYTHONPATH empty."
    if installed is None:
        return Finding("packages", False, f"no distribution {DISTRIBUTION} is installed; running from {root}", mend)
    if installed != root:
        return Finding(
            "packages", False, f"monitor comes from {root}, {DISTRIBUTION} is installed at {installed}", mend
        )
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        places = [] if spec is None else [Path(p).resolve().parent for p in spec.submodule_search_locations or ()]
        if places != [root]:
            where = ", ".join(map(str, places)) or "nowhere"
            return Finding("packages", False, f"{name} comes from {where}, not from {root}", mend)
    return Finding("packages", True, f"{DISTRIBUTION} {importlib.metadata.version(DISTRIBUTION)} at {root}")


def _installed_at() -> Path | None:
    """The directory that holds the distribution's packages, also of an editable installation."""
    try:
        found = importlib.metadata.distribution(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return None
    origin = json.loads(found.read_text("direct_url.json") or "{}")
    if origin.get("dir_info", {}).get("editable"):
        return Path(url2pathname(urlsplit(origin["url"]).path)).resolve()
    return Path(str(found.locate_file(""))).resolve()


def _crc32c() -> Finding:
    try:
        importlib.import_module("crc32c")
    except ImportError as error:
        mend = 'pip install "kafka-python[crc32c]"; without it reading Kafka takes eight times as long.'
        return Finding("crc32c", False, f"cannot be imported: {error}", mend)
    return Finding("crc32c", True, "checksums of Kafka records are computed natively")


# --- what the configuration points to ---------------------------------------------------------------------------------


def _key(config: Config) -> Iterator[Finding]:
    from monitor.assembly import key_path
    from monitor.intake.identity import IdentityKeyError, load_or_create_key

    path, database = key_path(config), config.store.url.path
    if path is None:
        mend = "Set identity.key_file; make one: (umask 077; openssl rand -hex 32 > FILE)."
        yield Finding("identity key", False, "none is configured, and this database needs one", mend)
        return
    new = config.identity.key_file is None and database is not None and not database.exists()
    if new and not path.exists():
        yield Finding("identity key", True, f"{path} is made at the first start")
        return
    try:
        load_or_create_key(path, create=False)
    except IdentityKeyError as error:
        sentence, _, mend = str(error).partition(". ")
        yield Finding("identity key", False, sentence, mend or "Restore it from a backup.")
        return
    yield Finding("identity key", True, str(path))


def _database(config: Config) -> Iterator[Finding]:
    from monitor.state.database import Database
    from monitor.state.errors import StoreError
    from monitor.state.schema import schema_state

    address = config.store.url
    if address.path is not None and not address.path.exists():
        place = address.path.parent
        sound = place.is_dir() and os.access(place, os.W_OK)
        made = f"{address.path} is made at the first start"
        bad = f"{address.path}: its directory is missing or cannot be written to"
        yield Finding(
            "database", sound, made if sound else bad, "" if sound else f"mkdir -p {place}, as the daemon's user"
        )
        return
    group = "modelwarden" if config.kafka is None else config.kafka.group
    database = Database(address.url, group)
    try:
        state = schema_state(database.engine)
    except StoreError as error:
        yield Finding("database", False, _text(error), "Start it, and check store.url, user, password and firewall.")
        return
    finally:
        database.engine.dispose()
    if state == "newer":
        yield Finding("database", False, f"{address}: made by a newer version", "Install that version, or a later one.")
    elif state == "older" and address.path is None:
        mend = "Stop the daemons, then: modelwarden migrate."
        yield Finding("database", False, f"{address}: its tables are older than this version", mend)
    else:
        what = {"current": "reached, tables up to date", "empty": "reached, empty: `run` makes the tables"}
        yield Finding("database", True, f"{address}: {what.get(state, 'tables are upgraded at the next start')}")
        if state == "current":
            yield from _stored_key(config)


def _stored_key(config: Config) -> Iterator[Finding]:
    """Whether the key is the one that the database was begun with."""
    from monitor.assembly import key_path
    from monitor.intake.identity import IdentityKeyError, key_id, load_or_create_key
    from monitor.state.store import open_store

    path = key_path(config)
    try:
        key = None if path is None else load_or_create_key(path, create=False)
    except IdentityKeyError:
        return  # found above
    store = open_store(config.store.url.url, "modelwarden" if config.kafka is None else config.kafka.group)
    try:
        known = store.setting("identity_key_id")
    finally:
        store.close()
    if key is not None and known not in (None, key_id(key)):
        mend = "Restore the key that the database was begun with."
        yield Finding("identity key", False, f"{path} is not the key of this database", mend)


def _kafka(config: Config) -> Iterator[Finding]:
    from monitor.config import ConfigError
    from monitor.daemon import kafka_source
    from monitor.intake.sources.base import SourceError, SourceUnavailable

    try:
        kafka = config.need_kafka()
    except ConfigError as error:
        yield Finding("kafka", False, f"{error.problems[0].key}: {error.problems[0].sentence}", error.problems[0].mend)
        return
    servers = ", ".join(map(str, kafka.bootstrap_servers))
    try:
        source = kafka_source(config)
        try:
            cluster = source.cluster_id()
            found = {partition.topic for partition in source.discover()}
        finally:
            source.close()
    except (SourceError, SourceUnavailable) as error:
        mend = "Start a broker, and check kafka.bootstrap_servers, kafka.security and the firewall."
        yield Finding("kafka", False, f"{servers}: {_text(error)}", mend)
        return
    yield Finding("kafka", True, f"{servers}: cluster {cluster}")
    for topic in kafka.topics:
        if topic.name in found:
            yield Finding(f"topic {topic.name}", True, "exists")
        else:
            mend = (
                f"kafka-topics.sh --create --topic {topic.name}, or correct kafka.topics, or allow the user to read it."
            )
            yield Finding(f"topic {topic.name}", False, "does not exist, or may not be seen", mend)


def _receivers(config: Config) -> Iterator[Finding]:
    for name, receiver in config.receivers.items():
        if isinstance(receiver, AlertmanagerReceiver):
            for url in receiver.urls:
                yield _alertmanager(f"receiver {name}", url)
        else:
            yield _webhook(f"receiver {name}", receiver)


def _alertmanager(name: str, url: str) -> Finding:
    import httpx

    host = urlsplit(url).hostname
    mend = f"Start it, and check the address under receivers.{name.removeprefix('receiver ')}.urls."
    try:
        answer = httpx.get(f"{url.rstrip('/')}/api/v2/status", timeout=TIMEOUT)
    except httpx.HTTPError as error:
        return Finding(name, False, f"{host}: {_text(error)}", mend)
    if answer.status_code != 200 or "cluster" not in answer.text:
        return Finding(name, False, f"{host}: answers {answer.status_code}, not as an Alertmanager does", mend)
    return Finding(name, True, f"{host}: Alertmanager answers")


def _webhook(name: str, receiver: WebhookReceiver) -> Finding:
    """Only whether somebody listens: a request would be a message."""
    file = None if receiver.secret_file is None else receiver.secret_file.path
    if file is not None:
        try:
            file.read_bytes()
        except OSError as error:
            mend = "Write the receiver's secret there, readable for the daemon."
            return Finding(name, False, f"{file}: {error.strerror}", mend)
    parts = urlsplit(receiver.url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname or "", port), TIMEOUT).close()
    except OSError as error:
        return Finding(name, False, f"{parts.hostname}:{port}: {_text(error)}", "Start it, and check its url.")
    return Finding(name, True, f"{parts.hostname}:{port} listens; nothing was posted")


def _references(config: Config) -> Iterator[Finding]:
    from monitor.assembly import reference_file, reference_rules, watch_settings
    from monitor.intake.formats.base import formats
    from monitor.references import read_reference
    from monitor.watch import Watch

    for name in config.models.listed:
        tenant, _, model = name.rpartition("/")
        settings = config.model_settings(model, tenant)
        path = reference_file(settings)
        if path is None:
            continue
        watch = Watch(f"model:{name}", model, tenant, watch_settings(settings, config.detectors))
        try:
            rows = read_reference(path, formats()["native"], reference_rules(config))
            columns = len(watch.prepare(rows, settings.reference_is).reference.fields)
        except ValueError as error:
            mend = f"Correct the file, or models.{name}.reference; `modelwarden reference build` checks a file."
            yield Finding(f"reference {name}", False, _text(error), mend)
        else:
            yield Finding(f"reference {name}", True, f"{path}: {len(rows):,} rows, {columns} fields")


def _text(error: Exception) -> str:
    return one_line(str(error) or type(error).__name__)
