"""What every part of the configuration shares: the base model, and one way to declare a key."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError


class Section(BaseModel):
    """A mapping of the file: immutable, unknown keys are errors, an empty value (`store:`) stands for all defaults."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False, hide_input_in_errors=True
    )

    @model_validator(mode="before")
    @classmethod
    def _empty_is_default(cls, value: Any) -> Any:
        return {} if value is None else value


def key(
    description: str, default: Any = ..., *, reload: bool = True, example: Any = None, repr: bool = True, **rules: Any
) -> Any:
    """Declare a key. `default` is written as in the file; `reload` says whether a reload may change it."""
    return Field(
        default=default,
        description=description,
        examples=None if example is None else [example],
        json_schema_extra={"x-reload": reload},
        repr=repr,
        **rules,
    )


def wrong(sentence: str, mend: str) -> PydanticCustomError:
    """The error of a validator: a sentence without the value itself, and how to mend it."""
    return PydanticCustomError("configuration", "{sentence}", {"sentence": sentence, "mend": mend})
