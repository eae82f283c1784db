"""Reads docker-compose.yml, so that the same services can be run without Docker."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sims_core.common.errors import BadInput

ROOT = Path(__file__).parents[2]
"""The checkout: what compose and the deployments refer to by relative paths."""
COMPOSE_FILE = ROOT / "docker-compose.yml"

_VARIABLE = re.compile(r"\$(?:(?P<dollar>\$)|\{(?P<name>\w+)(?::(?P<kind>[-?])(?P<text>[^}]*))?\})")


@dataclass(frozen=True)
class Service:
    """What compose would run: a command, its environment, and a command that says if it is well."""

    command: list[str]
    environment: dict[str, str]
    health: list[str]


def interpolate(text: str, variables: Mapping[str, str]) -> str:
    """Compose's `$$`, `${NAME}`, `${NAME:-default}` and `${NAME:?message}`.

    Raises:
        BadInput: a variable that must be set is not, or is empty.
    """

    def value(match: re.Match[str]) -> str:
        if match["dollar"]:
            return "$"
        found = variables.get(match["name"], "")
        if not found and match["kind"] == "?":
            raise BadInput(f"{match['name']} is not set: {match['text']}")
        return found or (match["text"] if match["kind"] == "-" else "")

    return _VARIABLE.sub(value, text)


def read_service(name: str, variables: Mapping[str, str]) -> Service:
    """The service as the compose file describes it.

    Raises:
        BadInput: this is no checkout, or a variable is not set.
    """
    if not COMPOSE_FILE.exists():
        raise BadInput(f"there is no {COMPOSE_FILE}: the stack runs from a checkout of sims-loop")
    found: dict[str, Any] = yaml.safe_load(COMPOSE_FILE.read_text())["services"][name]

    def texts(values: list[str]) -> list[str]:
        return [interpolate(text, variables) for text in values]

    return Service(
        command=texts(found.get("command", [])),
        environment={
            key: interpolate(text, variables) for key, text in found["environment"].items()
        },
        health=texts(found.get("healthcheck", {}).get("test", ["CMD"])[1:]),
    )
