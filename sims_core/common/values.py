"""Values of parameters as people read and type them."""

from __future__ import annotations

import json
from typing import Any


def counted(number: int, what: str) -> str:
    """1 image, 2 images."""
    return f"{number} {what}" + ("" if number == 1 else "s")


def shown_value(value: Any) -> str:
    """A parameter's value as the command line takes it; None: that of the preset."""
    if value is None:
        return "preset's"
    if (
        value
        and isinstance(value, list)
        and all(isinstance(each, int | float | str) for each in value)
    ):
        return ",".join(f"{each:g}" if isinstance(each, float) else str(each) for each in value)
    return value if isinstance(value, str) else json.dumps(value)
