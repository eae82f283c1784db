"""Whether the user names a Prefect server: told from Prefect's own settings, without importing it.

Importing Prefect takes a second or more; a run that has nothing to do without a server should not.
The places are Prefect's, in the order in which it looks (https://docs.prefect.io, "settings").
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

API_URL = "PREFECT_API_URL"


def names_a_server() -> bool:
    """Whether PREFECT_API_URL is set: by the environment, a file of this folder, or the profile."""
    return bool(_variable(API_URL) or _from_files() or _from_profile())


def _variable(name: str) -> str | None:
    """From the environment, else from this folder's .env file."""
    if name in os.environ:
        return os.environ[name]
    try:
        lines = Path(".env").read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    found = None
    for line in lines:
        key, equals, value = line.strip().removeprefix("export ").partition("=")
        if equals and key.strip() == name:
            found = value.strip().strip("'\"")
    return found


def _read(path: Path) -> dict[str, Any]:
    """A TOML file's content; nothing if there is none that can be read."""
    try:
        return tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return {}


def _from_files() -> object:
    """`api.url` of prefect.toml, or of the table [tool.prefect] of pyproject.toml."""
    project = _read(Path("pyproject.toml")).get("tool", {}).get("prefect", {})
    for settings in (_read(Path("prefect.toml")), project):
        if url := settings.get("api", {}).get("url"):
            return url
    return None


def _from_profile() -> object:
    """The active profile's."""
    home = Path(_variable("PREFECT_HOME") or "~/.prefect").expanduser()
    path = Path(_variable("PREFECT_PROFILES_PATH") or home / "profiles.toml").expanduser()
    profiles = _read(path)
    active = os.environ.get("PREFECT_PROFILE") or profiles.get("active")
    return profiles.get("profiles", {}).get(active, {}).get(API_URL)
