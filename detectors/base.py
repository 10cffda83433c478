"""The types every detector speaks: Batch, View, Evidence, Finding, Verdict, Detector, and the registry.

A statistical detector never raises an alarm. It yields `Evidence` (logs of e-values, block by block), the account
(account.py) turns evidence into verdicts, and the detector hears each verdict through `react` before it goes on.
Exact rules, which need no statistics, yield `Finding`s themselves.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import IntEnum
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]
U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]
Bool = npt.NDArray[np.bool_]
Page = dict[str, npt.NDArray[Any]]
"""One unit of stored state: named arrays. monitor/state/codec.py writes it with a version and a checksum."""

AccountName = Literal["drift", "attack", "traffic"]
Severity = Literal["info", "warning", "critical"]


class Cell(IntEnum):
    """What a numeric cell held. Only VALID and FILLED cells carry a finite number; all others hold 0.0."""

    VALID = 0
    NULL = 1
    """The field was there and null."""
    ABSENT = 2
    """The record had no such field."""
    NOT_FINITE = 3
    """NaN or infinite."""
    MISTYPED = 4
    """Text, a truth value or a structure where a number is expected."""
    FILLED = 5
    """A field that the version does not send: a value of the reference stands for it, unrelated to the other fields."""


NULL_CODE, ABSENT_CODE, MISTYPED_CODE = -1, -2, -3
"""Category codes below zero: null, field absent, not text. Codes from zero on index the column's vocabulary."""


@dataclass(frozen=True, slots=True)
class Numeric:
    """Numeric columns: `values` (n, d) float64, finite everywhere; `status` (n, d) of `Cell`; `names` (d,)."""

    names: tuple[str, ...]
    values: F64
    status: U8


@dataclass(frozen=True, slots=True)
class Category:
    """Categorical columns: `codes` (n, c) int32 into `vocabulary[c]`, or one of the codes below zero; `names` (c,).

    The vocabulary of a column begins with the values of the reference, in its order; values the reference does not
    have follow in the order in which this batch shows them. Codes of such values hold for this batch only.
    """

    names: tuple[str, ...]
    codes: I32
    vocabulary: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Identity:
    """Where each event was logged: `topic` indexes `topics`; partition, offset and row are int64; all (n,)."""

    topics: tuple[str, ...]
    topic: I32
    partition: I64
    offset: I64
    row: I64

    def part(self, rows: slice) -> Identity:
        """Those of some events."""
        return Identity(self.topics, self.topic[rows], self.partition[rows], self.offset[rows], self.row[rows])

    def at(self, i: int) -> str:
        """The identity of event `i` as one stable string."""
        return f"{self.topics[self.topic[i]]}/{self.partition[i]}/{self.offset[i]}/{self.row[i]}"


@dataclass(frozen=True, slots=True)
class Batch:
    """Frozen columns of consecutive events of one subject. Event `i` is row `i` of every column.

    `start` is the running number (from 0) of the first event among the subject's events, `time` the event times in
    epoch seconds. `client` indexes `clients` (pseudonyms), -1 where no client is known. `outputs` holds what the
    model answered as further columns: the numeric `score` or `prediction`, the categorical `class`. `new_fields`
    names fields the schema does not know, with the rows (int64, ascending) that have each. `event_ids` are
    chosen by clients: good for display, never a key.
    """

    subject: str
    start: int
    time: F64
    identity: Identity
    client: I32
    clients: tuple[str, ...]
    version: I32
    versions: tuple[str, ...]
    numeric: Numeric
    category: Category
    outputs_numeric: Numeric
    outputs_category: Category
    event_ids: tuple[str | None, ...]
    new_fields: tuple[tuple[str, I64], ...] = ()
    margin: F64 | None = None
    """(n,) largest score minus the second largest, NaN where scores are not logged; None where no event has any."""
    segment: I32 | None = None
    """(n,) index into `segments` of the segment an event carries itself, -1 without; None where no event has one."""
    segments: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.time)


@dataclass(frozen=True, slots=True)
class LabelBatch:
    """Frozen columns of joined labels of one subject, in the order in which label and prediction had both come.

    `time` is the label's and `asked` the prediction's (NaN where unknown), in epoch seconds; `clock` the newest time of
    any prediction by then, and `position` the running number of the next prediction: labels may bear any time, so
    budgets and causes go by these. `answer` and `label` index `classes` (-1: none of them, or a number). `error` is 1
    where they differ, else 0; of a model that predicts numbers (`numeric`) the distance. `score` is that of the
    predicted class (NaN where unknown), `weight` 1 / the rate at which predictions were sampled. `identity` and
    `event_ids` are those of the record that made the pair complete.
    """

    subject: str
    start: int
    time: F64
    asked: F64
    clock: F64
    position: I64
    identity: Identity
    event_ids: tuple[str | None, ...]
    version: I32
    versions: tuple[str, ...]
    classes: tuple[str, ...]
    answer: I32
    label: I32
    error: F64
    score: F64
    weight: F64
    sample_weight: F64
    numeric: bool
    member: U64 | None = None
    """(n,) bit k: the prediction was of `segments[k]`; None where no segment is declared."""
    segments: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.time)

    def part(self, first: int, last: int) -> LabelBatch:
        """Rows `first` to `last` (exclusive)."""
        rows = slice(first, last)
        columns = {f.name: getattr(self, f.name) for f in fields(self)}
        taken: dict[str, Any] = {n: c[rows] for n, c in columns.items() if isinstance(c, np.ndarray)}
        return replace(
            self, **taken, start=self.start + first, identity=self.identity.part(rows), event_ids=self.event_ids[rows]
        )


Rows = Batch | LabelBatch
"""What a finding may come from: `row` indexes it."""


# --- what detectors yield -------------------------------------------------------------------------------------------


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

    `ratio` is the capital at the alarm over what the same injections would be worth had no block carried evidence
    (all E = 1, leaks included), so that quiet months before the onset do not dilute it ("evidence ratio : 1").
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


# --- views ----------------------------------------------------------------------------------------------------------


class Views:
    """Derived columns of one batch, each computed at most once and shared by all detectors of the model."""

    def __init__(self, batch: Batch, context: Context) -> None:
        self.batch = batch
        self.context = context
        self._made: dict[str, Any] = {}

    def get(self, name: str) -> Any:
        """The view called `name`. KeyError names the known ones."""
        if name not in self._made:
            if name not in VIEWS:
                raise KeyError(f"no view {name!r}: its giver is off; known: {', '.join(sorted(VIEWS))}")
            self._made[name] = VIEWS[name](self)
        return self._made[name]

    def put(self, name: str, columns: Any) -> None:
        """Columns that a detector with a memory gives to those that run after it (`Detector.gives`)."""
        self._made[name] = columns


View = Callable[[Views], Any]
VIEWS: dict[str, View] = {}


def view(name: str) -> Callable[[View], View]:
    """Register a derived column under `name`."""

    def register(function: View) -> View:
        if name in VIEWS:
            raise ValueError(f"two views are called {name!r}")
        VIEWS[name] = function
        return function

    return register


# --- detectors ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Context:
    """What a detector may know of its model besides the batches: fixed while the detector lives."""

    subject: str
    reference: Any = None
    """`detectors.reference.Reference`, or None where the model has none (yet)."""
    events_per_day: float = 100_000.0
    importances: Mapping[str, float] = field(default_factory=dict)
    segments: tuple[str, ...] = ()
    """Fields whose values are watched separately."""
    thresholds: Mapping[str, float] = field(default_factory=dict)
    """Numeric column → value from which on a decision falls the other way."""
    calibration: float | None = None
    """Seconds from the first event that are declared honest traffic; None: a number of events is taken instead."""
    cache: dict[str, Any] = field(default_factory=dict, compare=False)
    """Compiled forms of the reference, shared by views and detectors; never state."""


class StateError(ValueError):
    """Stored state that this detector cannot take: wrong version, wrong shapes. The message names both."""


class Detector(ABC):
    """Declares what it is, eats batches, yields evidence or findings. One class a file; found by walking packages.

    Contract, checked for every registered detector by tests/conformance:
    deterministic along slices; `restore(all pages ever given by dirty(), newest first)` gives an equal detector;
    keeps no reference to a batch; survives NaN, infinities and huge numbers; bounded state; `update` with an empty
    batch and `advance` without events are harmless.
    """

    name: ClassVar[str]
    kind: ClassVar[str]
    """The kind of incident it raises most often; streams may name others."""
    raises: ClassVar[tuple[str, ...] | None] = None
    """Every kind of incident it leads to, for the documentation; None: `kind` alone."""
    scope: ClassVar[Literal["model", "client", "feature", "stream"]]
    inputs: ClassVar[frozenset[str]]
    """Of: features, outputs, scores, reference, training rows, client, labels, segments.

    Without one of them the detector is off, visibly."""
    state_version: ClassVar[int]
    views: ClassVar[tuple[str, ...]] = ()
    gives: ClassVar[tuple[str, ...]] = ()
    """Views it puts before others run: columns that need a memory, such as which queries were seen before."""
    account: ClassVar[AccountName | None] = None
    share: ClassVar[float] = 0.0
    atlas: ClassVar[tuple[str, ...]] = ()
    Params: ClassVar[type[Any]]
    """A frozen dataclass; the comments of its fields are the documentation."""

    def __init__(self, context: Context, params: Any) -> None:
        self.context = context
        self.params = params

    @classmethod
    def made(cls, context: Context, params: Any) -> Iterator[Detector]:
        """The detectors that a model gets of this class: one. A class that gives several names each differently."""
        yield cls(context, params)

    def streams(self) -> Sequence[Stream]:
        """The watched streams, in the order of their indices. Exact rules have none."""
        return ()

    def bets(self) -> Bets | None:
        """How the detector's share of the account is split. None for exact rules."""
        return None

    @abstractmethod
    def update(self, batch: Batch, views: Views) -> Iterator[Evidence | ClientEvidence | Finding]:
        """Eat one batch. After each yielded `Evidence` the caller calls `react` before it resumes the generator."""

    def update_labels(self, batch: LabelBatch) -> Iterator[Evidence | ClientEvidence | Finding]:
        """Eat joined labels, under the rules of `update`. Only detectors with "labels" in `inputs` are asked."""
        return iter(())

    def advance(self, watermark: float) -> Iterator[Evidence | ClientEvidence | Finding]:
        """Time has come to `watermark` (epoch seconds), also when no event came. Silence and time-outs live here."""
        return iter(())

    def screen(self, batch: Batch) -> Batch:
        """The batch as all detectors should see it; called before `update`. Most change nothing."""
        return batch

    def react(self, verdict: Verdict) -> None:  # noqa: B027  (most detectors do not mind)
        """Hear the verdict on the evidence just yielded, or an alarm of another detector of the model."""

    def explain(self, streams: Sequence[int], block: int) -> Explanation:
        """The numbers of the why for these streams at the last alarm. Only detectors with streams are asked."""
        raise NotImplementedError(f"{self.name} has no streams to explain")

    @property
    def bytes(self) -> int:
        """Memory of what it keeps of single clients and their queries, about."""
        return 0

    def shrink(self, excess: int) -> None:  # noqa: B027  (most keep nothing of single clients)
        """Give up about `excess` bytes of that, of the clients that matter least; less where that is not possible."""

    def figures(self) -> Mapping[str, float]:
        """Numbers for the metrics, by name. They are shown and decide nothing."""
        return {}

    @abstractmethod
    def dirty(self) -> dict[str, Page]:
        """Pages changed since the last call, by name. The arrays are the caller's: they are not touched again."""

    @abstractmethod
    def restore(self, pages: Mapping[str, Page]) -> None:
        """Take the state of an equal detector. Raises StateError and stays usable when the pages do not fit."""

    def merge(self, other: Detector) -> None:
        """Add the state of a detector that saw other events of the same model. Only where state is additive."""
        raise NotImplementedError(f"the state of {self.name} is not additive")


D = TypeVar("D", bound=type[Detector])
REGISTRY: dict[str, type[Detector]] = {}


def register(cls: D) -> D:
    """Class decorator: make a detector known under its name."""
    if cls.name in REGISTRY:
        raise ValueError(f"two detectors are called {cls.name!r}")
    REGISTRY[cls.name] = cls
    return cls


def registry() -> dict[str, type[Detector]]:
    """All detectors by name, sorted: walks the package once and imports every module in it."""
    import detectors

    for module in pkgutil.walk_packages(detectors.__path__, "detectors."):
        importlib.import_module(module.name)
    return dict(sorted(REGISTRY.items()))
