"""What to cite for a run: references.bib holds every entry, each run uses some of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from sims_core.reports.past_runs import PastRun

FILE = Path(__file__).with_name("references.bib")

ALWAYS = ("sims-loop", "karras2022elucidating")
METHODS = {
    "sims": "alemohammad2024self",
    "neon": "alemohammad2025neon",
    "autoguidance": "karras2024guiding",
}
METRICS = {
    "fid": "heusel2017gans",
    "kid": "binkowski2018demystifying",
    "precision": "kynkaanniemi2019improved",
    "inception_score": "salimans2016improved",
    "density": "naeem2020reliable",
    "w2_empirical": "flamary2021pot",
}
DATA = {
    "digits": "alpaydin1998optical",
    "cifar10": "krizhevsky2009learning",
    "mnist": "lecun1998gradient",
    "fashion": "xiao2017fashion",
}
NETS = {"edm2": "karras2024analyzing"}
IMAGE_METRICS = "obukhov2020fidelity"
LOOPS = "alemohammad2024mad"


def keys_of(run: PastRun) -> Iterator[str]:
    """The entries that a run's data, network, methods and metrics come from."""
    yield from ALWAYS
    parameters, experiment = run.parameters, run.provenance.get("experiment") or {}
    if "generations" in parameters or "pollution_sizes" in parameters:
        yield LOOPS
    names = " ".join(str(row.get("arm") or row.get("model") or "") for row in run.rows).lower()
    for method, key in METHODS.items():
        if method in names:
            yield key
    columns: set[str] = {name for row in run.rows for name in row}
    yield from (key for name, key in METRICS.items() if name in columns)
    if "fid" in columns:
        yield IMAGE_METRICS
    yield from _named(DATA, experiment, "data", "source")
    yield from _named(NETS, experiment, "model", "net", "kind")


def _named(table: dict[str, str], experiment: Any, *path: str) -> Iterator[str]:
    for name in path:
        experiment = experiment.get(name) if isinstance(experiment, dict) else None
    if isinstance(experiment, str) and experiment in table:
        yield table[experiment]


def entries() -> dict[str, str]:
    """Every entry of the file by its key."""
    texts = re.split(r"(?m)^(?=@)", FILE.read_text())
    return {
        match[1]: text.strip() for text in texts if (match := re.match(r"@\w+\{([^,]+),", text))
    }


def bibliography(runs: Iterable[PastRun]) -> str:
    """BibTeX of what the runs use, each entry once."""
    known = entries()
    used = dict.fromkeys(key for run in runs for key in keys_of(run))
    return "\n\n".join(known[key] for key in used) + "\n"
