"""The base of every configuration, and its errors in one line."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import (
    BaseModel,
    ConfigDict,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

WHOLE = "whole"
"""In the context of a dump: fields that are left out where nothing is said are given as null."""


MOST_QUOTED = 300
"""Characters of a value that a message gives."""


class Frozen(BaseModel):
    """Immutable, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Grown(Frozen):
    """A configuration that has gained fields.

    A dump leaves out a younger field that has its default: digests of what does not use it are as
    they were.
    """

    YOUNGER: ClassVar[tuple[str, ...]] = ()
    """The fields that it has gained. Their defaults are immutable."""

    @model_serializer(mode="wrap")
    def _without_what_is_not_said(
        self, dump: SerializerFunctionWrapHandler, info: SerializationInfo
    ) -> dict[str, Any]:
        fields: dict[str, Any] = dump(self)
        if not (info.context or {}).get(WHOLE):
            for name in self.YOUNGER:
                if getattr(self, name) == type(self).model_fields[name].default:
                    fields.pop(name, None)
        return fields


def one_line(error: ValidationError) -> str:
    """The first problem of a pydantic error: where it is, what it is, what was given."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "value"
    message = first["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    if first["type"] in ("extra_forbidden", "missing") or isinstance(first["input"], dict):
        return f"{where}: {message}"
    return f"{where}: {message}, got {_quoted(first['input'])}"


def _quoted(value: Any) -> str:
    """A value as Python writes it, not more of it than a line holds."""
    text = repr(value)
    return text if len(text) <= MOST_QUOTED else f"{text[:MOST_QUOTED]}..."
