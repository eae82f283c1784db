"""What a run is called where people look for it: its preset, and what differs from that."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from prefect.runtime import flow_run
from pydantic import ValidationError

from flows.parameters import checked, differing
from flows.presets import load_presets
from flows.registry import load_signature
from sims_core.common.errors import BadInput
from sims_core.common.shown import shown
from sims_core.common.values import shown_value

logger = logging.getLogger("sims_core.flows")

MOST = 120
"""Characters of a name; lists of overrides may be longer."""


def run_title(flow: str, parameters: Mapping[str, Any]) -> str:
    """`digits omegas=1,2 seed=3`.

    Args:
        flow: Its name.
        parameters: All of them, as Prefect has them.
    """
    preset = str(parameters["preset"])
    given = checked(load_signature(flow), parameters)
    overrides, seeds = given.pop("overrides"), given["seeds"]
    known = load_presets()[f"{flow}/{preset}"]
    found = differing(known, given)
    found["seed" if len(seeds) == 1 else "seeds"] = seeds
    found |= differing(known, overrides)  # last, as the end of a long name is cut off
    words = [preset, *(f"{name}={shown_value(value)}" for name, value in found.items())]
    title = shown(" ".join(words))
    return title if len(title) <= MOST else title[: MOST - 3] + "..."


def title_of_this_run() -> str:
    """That of the flow run that begins here. Prefect calls it, with nothing."""
    parameters = flow_run.parameters
    try:
        return run_title(flow_run.flow_name, parameters)
    except (BadInput, KeyError, ValidationError):  # what is wrong ends the run with its own words
        logger.debug("the run is called after its preset alone", exc_info=True)
        return shown(parameters.get("preset", flow_run.flow_name))
