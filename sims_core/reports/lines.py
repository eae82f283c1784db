"""Tables of figures as lines over what they vary, each point over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from sims_core.common.errors import BadInput
from sims_core.evaluation.metric import Figure, Neighborhoods, figures_in
from sims_core.reports.estimates import Estimate, estimate
from sims_core.reports.files import METRICS_TABLE
from sims_core.reports.past_runs import PastRun

AXES = {"t": "generation t", "pollution": "polluting samples |D_p|"}
"""Columns that a table may vary, and what an axis calls them."""

COSTS = ("nfe", "extra_training_percent")
"""Columns that say what a model costs."""

POINTS = (Figure("w2", "W2", "lower"), Figure("w2_empirical", "empirical W2", "lower"))
"""What is measured on points, which no metric of images declares."""


Rows = Sequence[Mapping[str, Any]]
"""A table: a mapping from column to value for each row."""


@dataclass
class Line:
    """One arm, or one model of a study: its figures by x and seed."""

    run: str
    """What tells its run from the others; empty where there is one."""
    name: str
    axis: str = ""
    """The column that it is drawn over; empty: it is one point."""
    points: dict[float, dict[int, dict[str, float]]] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return f"{self.run}: {self.name}" if self.run else self.name

    @property
    def seeds(self) -> list[int]:
        return sorted({seed for found in self.points.values() for seed in found})

    def over_seeds(self, figure: str) -> dict[float, Estimate]:
        """The figure at each x that has it, over the seeds that were measured there."""
        found = {}
        for x, by_seed in sorted(self.points.items()):
            values = [by_seed[seed][figure] for seed in sorted(by_seed) if figure in by_seed[seed]]
            if values:
                found[x] = estimate(values)
        return found


def lines_of(run: PastRun, label: str = "") -> list[Line]:
    """The lines of a run's table, in its order.

    A study's selection is left out: what it reports are its finals. Several measurements of one
    model with one seed are averaged.

    Raises:
        BadInput: the table has not the columns of a run's.
    """
    try:
        return _lines_of(run, label)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise BadInput(f"{run.folder / METRICS_TABLE} is no table of figures: {error}") from None


def _lines_of(run: PastRun, label: str) -> list[Line]:
    lines: dict[str, Line] = {}
    gathered: dict[tuple[str, float, int], list[dict[str, float]]] = {}
    for row in _reported(run.rows):
        axis = next((name for name in AXES if name in row), "")
        name = str(row.get("arm") or row.get("model") or run.name)
        if target := row.get("target"):
            name = f"{name} {target}"
        lines.setdefault(name, Line(label, name, axis))
        x = float(row[axis]) if axis else 0.0
        gathered.setdefault((name, x, seed_of(run, row)), []).append(_figures(row))
    for (name, x, seed), found in gathered.items():
        means = {key: fmean([each[key] for each in found]) for key in found[0]}
        lines[name].points.setdefault(x, {})[seed] = means
    return list(lines.values())


def _reported(rows: Rows) -> list[Mapping[str, Any]]:
    return [row for row in rows if row.get("phase") != "selection"]


def has_table(rows: Rows) -> bool:
    """Whether a run reports a figure that all its lines have."""
    return bool(known_figures(_reported(rows)))


def seed_of(run: PastRun, row: Mapping[str, Any]) -> int:
    """The seed of the model that a row is about.

    A table without `metric_seed` is of an earlier version, whose `seed` is that of KID's subsets.
    """
    if "metric_seed" in row:
        return int(row["seed"])
    return run.seeds[0] if run.seeds else 0


def _figures(row: Mapping[str, Any]) -> dict[str, float]:
    names = [each.name for each in known_figures([row])]
    counts = [
        name
        for name in ("n_generated", "n_real", "n_real_prc", *COSTS)
        if row.get(name) is not None
    ]
    return {name: float(row[name]) for name in (*names, *counts)}


def known_figures(rows: Rows, neighborhoods: Neighborhoods | None = None) -> list[Figure]:
    """The figures that every one of the rows has, in the order of reports; titles say k as
    `figures_in` does."""
    if not rows:
        return []
    points = [each for each in POINTS if each.name in rows[0]]
    candidates = [*points, *figures_in(rows[0], neighborhoods)]
    return [each for each in candidates if all(row.get(each.name) is not None for row in rows)]
