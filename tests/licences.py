"""The licence of everything that the lock installs, as a page: `make licences` writes it.

    python tests/licences.py > docs/licences.md

What a distribution says of itself: its licence expression, else its classifiers, else the first
line of its licence.
"""

from __future__ import annotations

import re
from importlib.metadata import Distribution, distributions
from pathlib import Path

LOCK = Path(__file__).parents[1] / "requirements.lock"
CLASSIFIER = "License :: "
HEAD = """# Licences of what is installed

`make licences` writes this page from what the installed distributions of `requirements.lock` say of
themselves; `make lock` renews the lock. NVIDIA's libraries come with torch from PyPI on Linux.

| package | version | licence |
|---|---|---|"""


def normalised(name: str) -> str:
    """A distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(lock: str) -> dict[str, str]:
    """The version of each distribution in the text of a lock."""
    pins = re.findall(r"^([A-Za-z0-9._-]+)(?:\[.*?\])?==([^\s;]+)", lock, re.MULTILINE)
    return {normalised(name): version for name, version in pins}


def licence(distribution: Distribution) -> str:
    """What it says that its licence is, in one line."""
    said = distribution.metadata
    if expression := said.get("License-Expression"):
        return str(expression)
    classes = [c for c in said.get_all("Classifier") or () if c.startswith(CLASSIFIER)]
    named = dict.fromkeys(c.rpartition(" :: ")[2] for c in classes)
    if named := [name for name in named if name != "OSI Approved"]:
        return ", ".join(named)
    lines = (str(said.get("License") or "").strip() or "not said").splitlines()
    return lines[0][:80]


def page() -> str:
    """The page, in markdown."""
    there = {normalised(d.metadata["Name"]): d for d in distributions()}
    rows = []
    for name, version in sorted(locked(LOCK.read_text()).items()):
        found = licence(there[name]) if name in there else "not installed here"
        rows.append(f"| {name} | {version} | {found.replace('|', '/')} |")
    return "\n".join([HEAD, *rows]) + "\n"


if __name__ == "__main__":
    print(page(), end="")
