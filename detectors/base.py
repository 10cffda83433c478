"""The types every detector speaks: Batch, View, Evidence, Finding, Verdict, Detector, and the registry.

A statistical detector never raises an alarm. It yields `Evidence` (logs of e-values, block by block), the account
(account.py) turns evidence into verdicts, and the detector hears each verdict through `react` before it goes on.
Exact rules, which need no statistics, yield `Finding`s themselves.

What a detector is and how views and the registry work stands here; batches are in batch.py, evidence and findings in
evidence.py. A detector imports all of them from here.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeVar

from detectors.batch import (
    ABSENT_CODE,
    F64,
    I32,
    I64,
    MISTYPED_CODE,
    NULL_CODE,
    U8,
    U64,
    Batch,
    Bool,
    Category,
    Cell,
    Identity,
    LabelBatch,
    Numeric,
    Page,
    Rows,
)
from detectors.evidence import (
    JOINS,
    NO_COLUMN,
    AccountName,
    Alarm,
    Bets,
    ClientEvidence,
    Evidence,
    Explanation,
    Finding,
    Latch,
    Measure,
    Profile,
    Severity,
    Stream,
    SubjectRef,
    Suspect,
    Verdict,
)

__all__ = [
    "ABSENT_CODE",
    "F64",
    "I32",
    "I64",
    "JOINS",
    "MISTYPED_CODE",
    "NO_COLUMN",
    "NULL_CODE",
    "REGISTRY",
    "U8",
    "U64",
    "VIEWS",
    "AccountName",
    "Alarm",
    "Batch",
    "Bets",
    "Bool",
    "Category",
    "Cell",
    "ClientEvidence",
    "Context",
    "Detector",
    "Evidence",
    "Explanation",
    "Finding",
    "Identity",
    "LabelBatch",
    "Latch",
    "Measure",
    "Numeric",
    "Page",
    "Profile",
    "Rows",
    "Severity",
    "StateError",
    "Stream",
    "SubjectRef",
    "Suspect",
    "Verdict",
    "View",
    "Views",
    "register",
    "registry",
    "view",
]


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
    every_event: ClassVar[bool] = False
    """An exact rule: it sees all events also while others are given a sample of them."""
    stride: ClassVar[int] = 1
    """Events it judges at a time. Detectors of a smaller one look at a batch first: what they find early in it is not
    latched by what another finds at its end."""
    account: ClassVar[AccountName | None] = None
    share: ClassVar[float] = 0.0
    lacking: ClassVar[str] = ""
    """Why `made` may give no detector."""
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
    def waits_for(self) -> int:
        """Live events it must still see before it can alarm, about, where these are more than a few."""
        return 0

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
