"""What detectors give and get: streams, evidence and its verdicts, findings and the measures they are told by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from detectors.batch import F64, I32, I64

AccountName = Literal["drift", "attack", "traffic"]
Severity = Literal["info", "warning", "critical"]


NO_COLUMN = "\0"
"""Begins the name of a field that is no column: streams that have it latch together, and no output depends on it."""


@dataclass(frozen=True, slots=True)
class Stream:
    """One watched quantity: `name` is unique in its detector; `fields` are the columns it is a function of."""

    name: str
    kind: str
    """Kind of incident this stream raises."""
    statistic: str
    """loc, scale, tail, range, missing, not_a_number, category, new, ..."""
    fields: tuple[str, ...]
    segment: str = ""
    """field=value, where only a part of the traffic is watched."""


@dataclass(frozen=True, slots=True)
class Bets:
    """The bets of a detector, flat: bet `k` is placed on stream `stream[k]` with `weight[k]`; weights sum to 1.

    Flat, because streams differ in the number of their bets. `leak[k]` <= 1 multiplies the capital of bet `k` at
    every block; it only lowers e-values, and keeps streams without events from hoarding their injection.
    """

    stream: I64
    weight: F64
    leak: F64


@dataclass(frozen=True, slots=True)
class Evidence:
    """Logs of e-values of consecutive blocks: `log_e` is (blocks, bets), E[exp(log_e) | past] <= 1 without change.

    `elapsed` (blocks,) is the watermark time in seconds that each block adds to the budget. It must be known before
    the block begins (the duration of the block before the last one), or the budget does not hold. `row` (blocks,) is
    the row of the current batch that closed the block, `position` (blocks,) the running number of that event.
    For role "recovery" column `k` of `log_e` belongs to the latch whose leading stream is `leading[k]`.
    """

    detector: str
    log_e: F64
    elapsed: F64
    row: I64
    position: I64
    role: Literal["alarm", "recovery"] = "alarm"
    leading: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ClientEvidence:
    """Logs of e-values of single events for the per-client rule: `log_e` is (n, tests), one row for an event of the
    batch; 0 where an event says nothing. `client` (n,) indexes `clients` (pseudonyms); rows with -1 are ignored.
    `usual` (tests,) is the share of an honest client's events with evidence above 0: the expectation a why states."""

    detector: str
    log_e: F64
    time: F64
    client: I32
    clients: tuple[str, ...]
    tests: tuple[str, ...]
    usual: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Alarm:
    """A verdict of the sum rule: the named `streams` carry at least 90 % of the capital, `leading` the most.

    `ratio` is the capital of the leading detector at the alarm over what the same injections would be worth had no
    block carried evidence (all E = 1, leaks included), so that quiet months before the onset do not dilute it
    ("evidence ratio : 1"). What others hold is left out: they may be a part of a batch ahead or behind.
    """

    detector: str
    streams: tuple[int, ...]
    leading: int
    block: int
    """Index into the evidence that alarmed."""
    row: int
    position: int
    ratio: float
    leading_bet: int = -1
    """Index of the bet of the leading stream with most capital; -1 where nobody can tell."""
    times: int = 1
    """How many alarms the fields of the leading stream have led within a week, this one included."""


@dataclass(frozen=True, slots=True)
class Latch:
    """Streams of a detector that stay silent after an alarm until they recover. `key` is stable and unique."""

    key: str
    detector: str
    streams: tuple[int, ...]
    leading: int
    cause: str = ""
    """Cause of the incident the latch belongs to."""


@dataclass(frozen=True, slots=True)
class Suspect:
    """A client whose evidence of one test crossed the threshold: at `row` of the batch, after `n` telling events
    since `since` (epoch seconds), of which `hits` were evidence against it. `evidence` holds the logs of all tests
    at that row."""

    client: str
    test: str
    row: int
    since: float
    n: int
    hits: int
    evidence: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the account made of one piece of evidence. `consumed` blocks were judged; the rest is void.

    An alarm at a block ends the judgement there: the detector re-computes later blocks, because it may have to
    restore its null first.
    """

    detector: str
    consumed: int
    alarm: Alarm | None = None
    latched: tuple[Latch, ...] = ()
    recovered: tuple[Latch, ...] = ()
    suspects: tuple[Suspect, ...] = ()
    """Clients that crossed the per-client threshold, in the order of the events."""


@dataclass(frozen=True, slots=True)
class Profile:
    """The distribution of a column in the target (`before`) and in the `n` events since an onset (`after`): shares.

    A categorical column has a bin for each of `names`. A numeric one has k `edges` and k + 3 bins: below the first
    edge, between edges (the upper one included), above the last, missing, not a number. `quantiles` holds (level,
    before, after), interpolated within bins; beyond the outer edges nothing is known.
    """

    names: tuple[str, ...]
    edges: tuple[float, ...]
    before: tuple[float, ...]
    after: tuple[float, ...]
    quantiles: tuple[tuple[float, float, float], ...]
    n: int


@dataclass(frozen=True, slots=True)
class Measure:
    """One number of a why, as it is stored and shown: what was observed, what was expected, over which events.

    Events may come out of the order of their times: the earlier of the two times given is `since`.
    """

    detector: str
    stream: str
    observed: float
    expected: float
    unit: str
    n: int
    since: float
    until: float
    field: str = ""
    statistic: str = ""
    profile: Profile | None = None
    """Of the column that moved, with its first measure."""

    def __post_init__(self) -> None:
        if self.since > self.until:
            since, until = self.until, self.since
            object.__setattr__(self, "since", since)
            object.__setattr__(self, "until", until)


@dataclass(frozen=True, slots=True)
class Explanation:
    """The numbers behind an alarm: onset with its interval (epoch seconds) and the measures, strongest first."""

    onset: float
    onset_interval: tuple[float, float]
    measures: tuple[Measure, ...]
    effects: Mapping[str, float] = field(default_factory=dict)
    """Column → how large its change is, about 1 for a shift of one standard deviation."""
    drop: float = 0.0
    """By how much the model's accuracy has fallen at least, as far as its scores tell."""


@dataclass(frozen=True, slots=True)
class SubjectRef:
    """Whom or what an incident is about: type (client, feature, model, ...)."""

    type: str
    id: str


JOINS = "joins"
"""Key of `Finding.detail`: causes, a line each; the finding feeds a live incident of one of them, if there is one."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something an operator should know of. `action` "open" starts or feeds an incident, "recover" ends one.

    `cause` identifies the cause among those of the same subject and account (an exact rule names its field; an
    alarm of a sum account leaves it empty: alarms near each other are one cause). `row` is the row of the current
    batch that triggered it, -1 when time did; `position` the running number of that event. The event that triggers it
    may be older than those before it: `onset` is never after `time`.
    """

    detector: str
    kind: str
    account: AccountName | Literal["rules"]
    severity: Severity
    time: float
    row: int
    position: int
    subjects: tuple[SubjectRef, ...]
    onset: float
    measures: tuple[Measure, ...]
    cause: str = ""
    action: Literal["open", "recover"] = "open"
    model_version: str | None = None
    atlas: tuple[str, ...] = ()
    detail: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.onset > self.time:
            object.__setattr__(self, "onset", self.time)
