"""What a request and a response hold, row by row: features under their names, the prediction, the scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from monitor.intake.events import Half, Tensor
from monitor.intake.formats.native import MAX_TEXT

PREDICTION, SCORES = "predict", "predict_proba"
"""Outputs of scikit-learn models under MLServer. Of other servers the first output counts: one value a row is a
prediction, several are scores."""


def feature_rows(request: Half, declared: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The features of each row. A single tensor takes the model's declared names where there are as many."""
    tensors = request.tensors
    names: list[str] = []
    for tensor in tensors:
        names += _names(tensor)
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


def _names(tensor: Tensor) -> list[str]:
    if tensor.width == 1:
        return [tensor.name]
    return [f"{tensor.name}_{i}" for i in range(tensor.width)] if tensor.values else []


def _row(tensor: Tensor, row: int) -> list[Any]:
    return tensor.values[row * tensor.width : (row + 1) * tensor.width]


def _named(response: Half, name: str) -> Tensor | None:
    return next((t for t in response.tensors if t.name == name), None)


def _unnamed(response: Half) -> Tensor | None:
    """The output that counts where none has a name that says what it is."""
    known = any(t.name in (PREDICTION, SCORES) for t in response.tensors)
    return None if known or not response.tensors else response.tensors[0]
