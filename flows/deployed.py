"""The flow of every deployment: that of its preset, which takes no other preset.

That of sims-loop/cifar10-small is found at `flows.deployed.sims_loop__cifar10_small`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from functools import update_wrapper, wraps
from typing import Annotated, Any, Literal

from prefect import Flow
from prefect.utilities.callables import parameter_schema

from flows.parameters import choice
from flows.presets import Preset, load_presets
from flows.registry import load_flow


def entrypoint(preset: Preset) -> str:
    """Where Prefect finds the deployment's flow, from any working directory."""
    return f"{__name__}.{_attribute(preset)}"


def _attribute(preset: Preset) -> str:
    return "__".join(re.sub(r"\W", "_", part) for part in (preset.flow, preset.name))


def __getattr__(name: str) -> Flow[..., Any]:
    for preset in load_presets().values():
        if _attribute(preset) == name:
            return _flow_of(preset)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}: no preset is called so")


def _flow_of(preset: Preset) -> Flow[..., Any]:
    """The preset's flow under its own name, with one choice of `preset`."""
    own = load_flow(preset.flow).with_options()
    own.fn = _taking(own.fn, preset.name)
    own.parameters = parameter_schema(own.fn)  # what the pages' form is made of
    update_wrapper(own, own.fn)
    return own


def _taking(function: Callable[..., Any], preset: str) -> Callable[..., Any]:
    """The function with `preset` as the only value of its parameter of that name."""

    @wraps(function)
    def of_preset(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    declared = inspect.signature(function)
    only = Annotated[Literal[preset], choice([preset])]  # type: ignore[valid-type]
    parameters = [
        each.replace(annotation=only, default=preset) if each.name == "preset" else each
        for each in declared.parameters.values()
    ]
    known: Any = of_preset
    known.__signature__ = declared.replace(parameters=parameters)
    known.__annotations__ = {**function.__annotations__, "preset": only}
    known.__doc__ = re.sub(
        r"(?m)^( +preset: ).*$",
        r"\1The experiment of this deployment. Other presets have deployments of their own.",
        function.__doc__ or "",
    )
    return of_preset
