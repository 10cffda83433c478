"""A reference: the rows that say what a model's data should be, as columns of the same form as live batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from detectors.base import F64, Batch

Origin = Literal["file", "same_traffic", "live"]


@dataclass(frozen=True, slots=True)
class Reference:
    """The target of a model: `rows` in the order they were given, and how far they can be trusted.

    `origin` "file" is a training or validation file, which is never quite live traffic; "same_traffic" a declared,
    approved stretch of the same traffic; "live" a provisional one learnt from the first live events. `version` is
    the hash of its content. Row order carries no meaning unless `ordered`.
    """

    rows: Batch
    origin: Origin
    version: str
    ordered: bool = False
    training: Batch | None = None
    """Rows the model was trained on, where they are given apart from the target."""
    right: F64 | None = None
    """(rows,) 1 where the answer of a row is its label, 0 where not, NaN without a label; None where none has one."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the input fields, numeric before categorical."""
        return self.rows.numeric.names + self.rows.category.names

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the model's output columns, numeric before categorical."""
        return self.rows.outputs_numeric.names + self.rows.outputs_category.names
