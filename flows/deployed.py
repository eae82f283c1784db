"""The flow of every deployment: that of its preset, which takes no other preset.

That of sims-loop/cifar10-small is found at `flows.deployed.sims_loop__cifar10_small`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from functools import update_wrapper, wraps
from typing import Annotated, Any, Literal

from prefect import Flow, State, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.flows import FlowStateHook
from prefect.states import Failed
from prefect.utilities.callables import parameter_schema

from flows.parameters import check_parameters, choice
from flows.presets import Preset, load_presets
from flows.registry import load_flow, load_signature
from sims_core.common.errors import BadInput


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
    own = load_flow(preset.flow)
    own = own.with_options(on_crashed=[*own.on_crashed_hooks, _says_what_was_refused(preset)])
    own.fn = _taking(own.fn, preset.name)
    own.parameters = parameter_schema(own.fn)  # what the pages' form is made of
    update_wrapper(own, own.fn)
    return own


def _says_what_was_refused(preset: Preset) -> FlowStateHook[..., Any]:
    """A hook of a run whose parameters are none of its flow's.

    The server takes unknown names from its API, and Prefect ends the run's process before the flow
    begins: such a run would be Crashed, with a status code for a reason.
    """

    def refused(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
        given = {name: value for name, value in flow_run.parameters.items() if name != "preset"}
        try:
            check_parameters(load_signature(preset.flow), preset, given)
        except BadInput as error:
            failed: State[Any] = Failed(message=str(error))
            with get_client(sync_client=True) as client:
                client.set_flow_run_state(flow_run.id, failed, force=True)

    return refused


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
