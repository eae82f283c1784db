"""The figures of an evaluation as a file: metrics.json."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from sims_core.store.artifacts import ArtifactRef
from sims_core.store.store import Store

METRICS_FILE = "metrics.json"

METRICS_KIND: Final = "metrics"
"""The kind of every artifact that holds a METRICS_FILE."""

Figures = Mapping[str, int | float]
"""Figures by name, with their sample counts and the seed of what is drawn at random in them."""


def write_metrics(folder: Path, figures: Figures) -> None:
    """Writes the figures of an evaluation into its artifact."""
    (folder / METRICS_FILE).write_text(json.dumps(dict(figures)))


def read_metrics(store: Store, ref: ArtifactRef) -> dict[str, int | float]:
    """An evaluation's figures, from its checksummed file.

    Raises:
        DamagedArtifact: the artifact is not there, or not whole.
    """
    metrics: dict[str, int | float] = json.loads(
        (store.open_artifact(ref) / METRICS_FILE).read_bytes()
    )
    return metrics


def read_figures(store: Store, refs: Iterable[ArtifactRef]) -> dict[str, int | float]:
    """The figures of all the evaluations among these artifacts, in one.

    Raises:
        DamagedArtifact: one of them is not there, or not whole.
    """
    found: dict[str, int | float] = {}
    for ref in refs:
        if ref.kind == METRICS_KIND:
            found |= read_metrics(store, ref)
    return found
