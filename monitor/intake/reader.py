"""From records to events: the format of each topic, joined requests and responses, and dead letters for what is bad."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import structlog

from monitor.intake.dead_letters import dead_letter
from monitor.intake.events import DeadLetter, Event, Reason, Record, Rejected
from monitor.intake.formats.base import Format, TopicRules
from monitor.intake.pairing import Pairing, PairingRules
from monitor.printable import whereabouts

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Intake:
    """How the records of one topic are read. Requests and responses need the pairing that joins them."""

    format: Format
    rules: TopicRules
    pairing: PairingRules | None = None


class Read(NamedTuple):
    """What a record held, and the record (topic, partition, offset) that the events are told by."""

    events: list[Event]
    bad: list[DeadLetter]
    origin: tuple[str, int, int]


class RecordReader:
    """Reads records one by one; whatever they hold, nothing is raised."""

    def __init__(self, pairings: Mapping[str, Pairing], digest_key: bytes) -> None:
        self._pairings = pairings
        self._digest_key = digest_key

    def read(self, intake: Intake, record: Record) -> Read:
        """Events and dead letters of one record."""
        origin = record[:3]
        try:
            decoded = intake.format.decode(record, intake.rules)
            if decoded.half is not None:
                if intake.pairing is None:
                    raise Rejected(
                        Reason.BAD_TYPE, "requests and responses are read from two topics that belong together"
                    )
                events, origin = self._pairings[intake.pairing.name].pair(decoded.half)
                return Read(events, decoded.bad_rows, origin)
        except Rejected as rejected:
            return Read([], [self._dead_letter(record, rejected)], origin)
        except Exception as error:
            where = f"{record.topic}/{record.partition}/{record.offset}"
            log.error("decoder failed", record=where, error=whereabouts(error))
            return Read([], [self._dead_letter(record, Rejected(Reason.INTERNAL, type(error).__name__))], origin)
        return Read(decoded.events, decoded.bad_rows, origin)

    def _dead_letter(self, record: Record, rejected: Rejected) -> DeadLetter:
        try:
            return dead_letter(record, rejected, self._digest_key)
        except Exception as error:
            log.error("structure of a dead letter not told", error=whereabouts(error))
            length = len(record.value or b"")
            return DeadLetter(record.topic, record.partition, record.offset, -1, rejected.reason, "", {}, length, "")
