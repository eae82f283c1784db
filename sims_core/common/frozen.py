"""The base of every configuration, and its errors in one line."""

from __future__ import annotations

from pydantic import (
    BaseModel,
    ConfigDict,
    ValidationError,
)

WHOLE = "whole"
"""In the context of a dump: fields that are left out where nothing is said are given as null."""


class Frozen(BaseModel):
    """Immutable, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def one_line(error: ValidationError) -> str:
    """The first problem of a pydantic error: where it is, what it is, what was given."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "value"
    message = first["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    if first["type"] in ("extra_forbidden", "missing") or isinstance(first["input"], dict):
        return f"{where}: {message}"
    return f"{where}: {message}, got {first['input']!r}"
