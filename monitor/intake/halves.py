"""What a request and a response hold, row by row: features under their names, the prediction, the scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from monitor.intake.events import Half, Reason, Rejected, Tensor
from monitor.intake.formats.native import MAX_TEXT

MAX_NAME = 60
"""Characters of a name that a reason repeats."""
PREDICTION, SCORES = "predict", "predict_proba"
"""Outputs of scikit-learn models under MLServer. Of other servers the first output counts: one value a row is a
prediction, several are scores."""


def feature_rows(request: Half, declared: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The features of each row. A single tensor takes the model's declared names where there are as many.

    Columns of a wide tensor `a` are `a_0`, `a_1`, …; where another input has such a name, `a[0]`, `a[1]`, …. Rejected
    where two inputs have one name even so.
    """
    tensors = request.tensors
    names = _names(tensors, "{}_{}")
    if len(set(names)) < len(names):
        names = _names(tensors, "{}[{}]")
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise Rejected(Reason.BAD_FIELD, f"two inputs of the request are named {twice[:MAX_NAME]!r}")
    if len(tensors) == 1 and len(declared) == tensors[0].width:
        names = list(declared)
    for i in range(request.rows):
        single = len(tensors) == 1
        values = _row(tensors[0], i) if single else [v for tensor in tensors for v in _row(tensor, i)]
        yield dict(zip(names, values, strict=True))


def prediction_column(response: Half, classes: Sequence[str]) -> list[Any] | None:
    """The prediction of each row. A number that is no class is the index of one, where the model declares classes."""
    tensor = _named(response, PREDICTION)
    if tensor is None:
        first = _unnamed(response)
        tensor = first if first is not None and first.width == 1 else None
    if tensor is None:
        return None
    if tensor.width != 1:
        return [_row(tensor, i) for i in range(response.rows)]
    return [_answer(value, classes) for value in tensor.values]


def score_column(response: Half, classes: Sequence[str]) -> list[Any] | None:
    """The scores of each row: by class where the model declares as many, else in the order of the tensor."""
    tensor = _named(response, SCORES)
    if tensor is None:
        first = _unnamed(response)
        tensor = first if first is not None and first.width > 1 else None
    if tensor is None:
        return None
    rows = [_row(tensor, i) for i in range(response.rows)]
    if len(classes) != tensor.width:
        return rows
    return [dict(zip(classes, row, strict=True)) for row in rows]


def _answer(value: Any, classes: Sequence[str]) -> Any:
    if type(value) is str:
        return value[:MAX_TEXT]
    if type(value) is int and classes and 0 <= value < len(classes) and str(value) not in classes:
        return classes[value]
    return value


def _names(tensors: Sequence[Tensor], wide: str) -> list[str]:
    """Names of all columns. `wide` makes one of tensor and number where a tensor has several."""
    names: list[str] = []
    for tensor in tensors:
        if tensor.width == 1:
            names.append(tensor.name)
        elif tensor.values:
            names += [wide.format(tensor.name, i) for i in range(tensor.width)]
    return names


def _row(tensor: Tensor, row: int) -> list[Any]:
    return tensor.values[row * tensor.width : (row + 1) * tensor.width]


def _named(response: Half, name: str) -> Tensor | None:
    return next((t for t in response.tensors if t.name == name), None)


def _unnamed(response: Half) -> Tensor | None:
    """The output that counts where none has a name that says what it is."""
    known = any(t.name in (PREDICTION, SCORES) for t in response.tensors)
    return None if known or not response.tensors else response.tensors[0]
