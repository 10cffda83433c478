"""The `budget:` and `models:` sections: what is watched, and how many false alarms it may cost."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Literal

from pydantic import Field

from monitor.config.section import Section, key
from monitor.config.values import Alarms, Duration, Label, Name, Natural, Number, PathKey, Positive, Size, Weight


class Budget(Section):
    """At most this many false alarms of each sort per model in each period."""

    per: Duration = key("Period.", "30d")
    drift: Alarms = key("False alarms of drift, data quality and performance.", 1)
    attack: Alarms = key("Honest clients named as attackers.", 1)
    traffic: Alarms = key("False alarms of traffic, errors, latency and access.", 1)


class BudgetOverride(Section):
    """The parts of the budget that differ for one model."""

    per: Duration | None = key("Period; default: as in `budget`.", None)
    drift: Alarms | None = key("False alarms of drift; default: as in `budget`.", None)
    attack: Alarms | None = key("Honest clients named as attackers; default: as in `budget`.", None)
    traffic: Alarms | None = key("False alarms of traffic; default: as in `budget`.", None)


class Labels(Section):
    """How long and with how much memory predictions wait for their labels."""

    max_delay: Duration = key("A label later than this is not joined.", "60d")
    max_bytes: Size = key("Memory for predictions that wait; beyond it they are sampled, visibly.", "256MiB")


class Calibration(Section):
    """The first stretch of the traffic, from which honest behaviour is learnt."""

    for_: Duration = key("Length of the stretch.", "12h", alias="for")

    @property
    def duration(self) -> timedelta:
        return self.for_


class AutoModels(Section):
    """Models that are not listed."""

    max: Natural = key("Watch unknown models up to this many.", 200)


class _ModelKeys(Section):
    owner: Name | None = key("Team or person that owns the model.", None)
    reference: PathKey | None = key(
        "File of rows that show what the data should be: JSON lines, CSV or Parquet.",
        None,
        example="refs/credit.jsonl.gz",
    )
    reference_is: Literal["file", "same_traffic"] = key(
        "file: a training or validation file; same_traffic: an approved stretch of this same traffic.", "file"
    )
    training_rows: PathKey | None = key("File of training rows, for the detection of membership probes.", None)
    features: tuple[Name, ...] = key("Features to watch; empty: all that appear.", [])
    shape: tuple[Positive, ...] = key(
        "Shape of `input` where it is nested or encoded: its cells are watched as x0, x1, … in row-major order.", []
    )
    classes: tuple[Label, ...] = key("Class names in the order of a score array.", [])
    threshold: Mapping[str, Number] = key(
        "Decision threshold of the score, by class: the share of predictions beyond it is watched (two classes).", {}
    )
    segments: tuple[Name, ...] = key(
        "Categorical fields, or `segment` as events carry it; values with 100 reference rows are watched separately.",
        [],
    )
    importances: Mapping[str, Weight] = key(
        "Importance of features: drift is critical, a warning or only told by its size times the importance.", {}
    )
    services: Mapping[str, Name] = key("Declared service accounts: identity → name.", {})
    labels: Labels = key("Joining of labels.", {})
    on_new_version: Literal["inherit", "fresh", "hold"] = key(
        "When a new version answers most predictions: keep what was learnt (inherit), learn afresh (fresh), or judge "
        "nothing until its incident is resolved or another reference approved (hold).",
        "inherit",
    )
    calibration: Calibration | None = key(
        "Honest behaviour is learnt from this first stretch; without it, from the first 2,000 distinct queries.", None
    )
    season: Literal["auto", "none"] = key("auto: daily and weekly cycles are learnt; none: declared absent.", "auto")


class ModelEntry(_ModelKeys):
    """One model as the file lists it."""

    budget: BudgetOverride = key("Where its budget differs from the default.", {})


class ModelSettings(_ModelKeys):
    """One model with every default filled in; `declared` says whether the file lists it."""

    name: str = key("Name of the model.")
    tenant: str = key("Its tenant, or empty.", "")
    declared: bool = key("Whether the file lists it.", False)
    budget: Budget = key("Its budget.", {})


class Models(Section, extra="allow"):
    """`auto`, and the listed models by "name" or "tenant/name"."""

    __pydantic_extra__: dict[str, ModelEntry] = Field(init=False)

    auto: AutoModels = key("Models that are not listed.", {})

    @property
    def listed(self) -> Mapping[str, ModelEntry]:
        """The entries as written, without `auto`."""
        return self.__pydantic_extra__

    def entry(self, name: str, tenant: str = "") -> ModelEntry | None:
        """The entry "tenant/name" if there is one, else "name", else None; two entries are not mixed."""
        own = self.listed.get(f"{tenant}/{name}") if tenant else None
        return self.listed.get(name) if own is None else own
