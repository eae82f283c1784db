"""The flows that there are: flow "a-b" is the function `a_b` of module `flows.a_b`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from flows.presets import load_presets

if TYPE_CHECKING:  # it takes seconds to import
    from prefect import Flow


def entrypoint(flow: str) -> str:
    """Where Prefect finds the flow, from any working directory."""
    module = flow.replace("-", "_")
    return f"flows.{module}.{module}"


def load_flow(flow: str) -> Flow[..., Any]:
    """The flow of a preset, by name."""
    module, _, function = entrypoint(flow).rpartition(".")
    loaded: Flow[..., Any] = getattr(import_module(module), function)
    return loaded


def preset_names(flow: str) -> list[str]:
    """The presets of this flow, without its name."""
    return [preset.name for preset in load_presets().values() if preset.flow == flow]
