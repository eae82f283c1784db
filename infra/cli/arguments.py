"""`-p key=value` texts of the command line to parameter values."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, get_origin

from pydantic import BaseModel

from sims_core.common.errors import BadInput


def parse_parameters(texts: Sequence[str], model: type[BaseModel]) -> dict[str, Any]:
    """`key=value` texts to JSON values.

    A value is read as JSON, else as text. A list may be written 1,2 and a single value stands for a
    list of one. A dotted key is an override: training.kimg=10.

    Raises:
        BadInput: no "=", or a key given twice.
    """
    values: dict[str, Any] = {}
    overrides: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise BadInput(f"-p wants key=value, got {text!r}")
        target = overrides if "." in key else values
        if key in target:
            raise BadInput(f"parameter {key!r} is given twice")
        target[key] = _parse_value(value)
        if key in model.model_fields and get_origin(model.model_fields[key].annotation) is list:
            target[key] = _as_list(target[key])
    if overrides:
        given = values.get("overrides", {})
        if not isinstance(given, dict):
            raise BadInput(f"parameter overrides: want an object of dotted names, got {given!r}")
        values["overrides"] = {**given, **overrides}
    return values


def _parse_value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # no JSON, or none that Python reads
        return text


def _as_list(value: Any) -> list[Any]:
    if isinstance(value, str):
        return [_parse_value(part.strip()) for part in value.split(",") if part.strip()]
    return value if isinstance(value, list) else [value]
