"""The flows that there are: flow "a-b" is the function `a_b` of module `flows.a_b`.

Its parameters are those of the function `a_b` of module `flows.signatures.a_b`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from flows.presets import load_presets

if TYPE_CHECKING:  # it takes seconds to import
    from prefect import Flow

T = TypeVar("T")
Signature = Callable[..., dict[str, Any]]


def load_flow(flow: str) -> Flow[..., Any]:
    """The flow of a preset, by name."""
    name = flow.replace("-", "_")
    loaded: Flow[..., Any] = getattr(import_module(f"flows.{name}"), name)
    return loaded


def load_signature(flow: str) -> Signature:
    """What declares the flow's parameters, without Prefect: returns what it is called with."""
    name = flow.replace("-", "_")
    loaded: Signature = getattr(import_module(f"flows.signatures.{name}"), name)
    return loaded


def takes(signature: Signature) -> Callable[[Callable[[dict[str, Any]], T]], Callable[..., T]]:
    """Gives a function of a dictionary the parameters, defaults and description of `signature`."""

    # With types for their names: Prefect would look those up among the globals of this module.
    declared = inspect.signature(signature, eval_str=True)
    types = {name: parameter.annotation for name, parameter in declared.parameters.items()}

    def decorate(function: Callable[[dict[str, Any]], T]) -> Callable[..., T]:
        @wraps(signature)
        def with_parameters(*args: Any, **kwargs: Any) -> T:
            return function(signature(*args, **kwargs))

        known: Any = with_parameters
        known.__module__, known.__annotations__, known.__signature__ = (
            function.__module__,
            types,
            declared,
        )
        return with_parameters

    return decorate


def preset_names(flow: str) -> list[str]:
    """The presets of this flow, without its name."""
    return [preset.name for preset in load_presets().values() if preset.flow == flow]
