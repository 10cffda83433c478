"""The model that the resource of an access names, as inference servers lay out their addresses."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import Final, NamedTuple
from urllib.parse import unquote

_CERTAIN: Final = ("models", "endpoints")
"""Segments that a model's name follows: TensorFlow Serving, KServe, Triton, MLServer; SageMaker."""
_PERHAPS: Final = ("predictions",)
"""TorchServe; elsewhere what follows may be anything."""
_LONGEST: Final = 200
_REMEMBERED: Final = 4_096


class NamedModel(NamedTuple):
    """A model's name; `certain`: nothing else than a model can be meant."""

    model: str
    certain: bool


@lru_cache(_REMEMBERED)
def model_in(resource: str) -> NamedModel | None:
    """The model in `/v1/models/NAME:predict`, `/v2/models/NAME/infer` and the like; None where no model is named."""
    segments = resource.partition("?")[0].partition("#")[0].split("/")
    for marker, name in pairwise(segments):
        if marker in _CERTAIN or marker in _PERHAPS:
            model = unquote(name.partition(":")[0])
            if model and len(model) <= _LONGEST and model.isprintable():
                return NamedModel(model, marker in _CERTAIN)
    return None
