"""Several runs beside each other: those that differ in their seed alone are one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sims_core.common.digest import digest_of
from sims_core.common.errors import BadInput
from sims_core.common.values import shown_value
from sims_core.evaluation.metric import Figure
from sims_core.reports.lines import COSTS, Line, known_figures, lines_of
from sims_core.reports.past_runs import SEEDS, PastRun, differences

MOST_NAMED = 2
"""A run is called by what differs as long as that is no more than so many parameters."""


@dataclass(frozen=True)
class RunComparison:
    """What `sims runs compare` shows."""

    runs: tuple[PastRun, ...]
    groups: tuple[tuple[PastRun, ...], ...]
    """Runs that differ in their seed alone, together."""
    labels: tuple[str, ...]
    """What tells each group from the others."""
    lines: tuple[Line, ...]
    figures: tuple[Figure, ...]
    """Those that all lines have, the runs' main one first."""
    notes: tuple[str, ...] = ()
    differences: dict[str, list[Any]] = field(default_factory=dict)
    """Parameters that differ, with each run's value."""

    @property
    def axis(self) -> str:
        """What all lines are drawn over; empty: they are points, or not all over the same."""
        axes = {line.axis for line in self.lines}
        return axes.pop() if len(axes) == 1 else ""

    def tidy_rows(self) -> list[dict[str, Any]]:
        """A row for each line, x and seed: the figures as the runs' own tables have them."""
        return [
            {"run": line.run, "line": line.name, **_at(line, x), "seed": seed, **figures}
            for line in self.lines
            for x, by_seed in sorted(line.points.items())
            for seed, figures in sorted(by_seed.items())
        ]

    def table_rows(self) -> list[dict[str, Any]]:
        """A row for each line and x: every figure's mean, interval and number of seeds."""
        rows = []
        for line in self.lines:
            found = {each.name: line.over_seeds(each.name) for each in self.figures}
            costs = {name: line.over_seeds(name) for name in COSTS}
            for x, by_seed in sorted(line.points.items()):
                row: dict[str, Any] = {"run": line.run, "line": line.name, **_at(line, x)}
                row["seeds"] = len(by_seed)
                for name, over_seeds in found.items():
                    each = over_seeds[x]
                    row |= {name: each.mean, f"{name}_low": each.low, f"{name}_high": each.high}
                row |= {name: each[x].mean for name, each in costs.items() if x in each}
                rows.append(row)
        return rows

    def cost_rows(self) -> list[dict[str, Any]]:
        """What each run took, as its run.json says."""
        return [
            {
                "run": run.name,
                "stages computed": _stages(run).get("computed"),
                "from the store": _stages(run).get("cached"),
                "seconds computed": _stages(run).get("seconds"),
                "MB with artifacts": round(run.size / 1e6, 1),
                "device": (run.provenance.get("machine") or {}).get("device"),
            }
            for run in self.runs
        ]


def _at(line: Line, x: float) -> dict[str, Any]:
    return {line.axis: int(x)} if line.axis else {}


def _stages(run: PastRun) -> dict[str, Any]:
    return dict(run.content.get("stages") or {})


def compare_runs(runs: Sequence[PastRun]) -> RunComparison:
    """Reads the runs' tables.

    Raises:
        BadInput: a run is given twice or has not ended, or the runs have no figure in common.
    """
    if len({run.folder for run in runs}) < len(runs):
        raise BadInput("the same run is given twice")
    for run in runs:
        if not run.content or not run.rows:
            raise BadInput(f"run {run.name} has not ended: it has no table of figures yet")
    groups = _groups(runs)
    labels, notes = _labels(groups), [run.how_far for run in runs if run.how_far]
    lines = _each_once(
        (
            line
            for group, label in zip(groups, labels, strict=True)
            for line in _merged(group, label, notes)
        ),
        notes,
    )
    found = [figures for line in lines for x in line.points.values() for figures in x.values()]
    figures = known_figures(found, _common_neighborhoods(runs, notes))
    if not figures:
        raise BadInput("the runs have no figure in common: these compare nothing")
    main = runs[0].figure
    figures.sort(key=lambda each: each.name != main)
    counts = sorted({each["n_generated"] for each in found if "n_generated" in each})
    if len(counts) > 1:
        listed = " and ".join(f"{count:g}" for count in counts)
        notes.append(f"figures of {listed} generated data: an FID depends on how many there are")
    return RunComparison(
        tuple(runs),
        tuple(groups),
        labels,
        tuple(lines),
        tuple(figures),
        tuple(notes),
        differences(runs),
    )


def _common_neighborhoods(runs: Sequence[PastRun], notes: list[str]) -> dict[str, int]:
    """k of the metrics that all runs have measured with the same; a note for each other one."""
    known = [run.neighborhoods for run in runs]
    found = {}
    for name in dict.fromkeys(name for each in known for name in each):
        told = sorted({each[name] for each in known if name in each})
        if len(told) > 1:
            notes.append(f"{name} at k = {' and '.join(map(str, told))}: these do not compare")
        elif all(name in each for each in known):
            found[name] = told[0]
    return found


def _each_once(lines: Iterable[Line], notes: list[str]) -> list[Line]:
    """Without those that are an earlier one's models: runs share what they have in common."""
    found: list[Line] = []
    for line in lines:
        what = (line.name, line.axis, line.points)
        same = next((each for each in found if (each.name, each.axis, each.points) == what), None)
        if same is None:
            found.append(line)
        else:
            notes.append(f"{line.label}: the same figures as {same.label}, shown once")
    return found


def _groups(runs: Sequence[PastRun]) -> list[tuple[PastRun, ...]]:
    groups: dict[str, list[PastRun]] = {}
    for run in runs:
        said = {name: value for name, value in run.parameters.items() if name not in SEEDS}
        asked = [run.preset, said, run.provenance.get("experiment")]
        key = digest_of(asked) if run.provenance else str(run.folder)  # not said: its own
        groups.setdefault(key, []).append(run)
    return [tuple(group) for group in groups.values()]


def _labels(groups: Sequence[Sequence[PastRun]]) -> tuple[str, ...]:
    if len(groups) == 1:
        return ("",)
    firsts = [group[0] for group in groups]
    unequal = differences(firsts)
    asked = {name for run in firsts for name in run.parameters}
    names = [name for name in unequal if name in asked and name not in SEEDS]
    if all(run.provenance for run in firsts) and 0 < len(names) <= MOST_NAMED:
        labels = [
            ", ".join(f"{name}={shown_value(unequal[name][number])}" for name in names)
            for number in range(len(firsts))
        ]
        if len(set(labels)) == len(labels):
            return tuple(labels)
    return tuple(run.name for run in firsts)


def _merged(group: Sequence[PastRun], label: str, notes: list[str]) -> list[Line]:
    """The lines of runs that differ in their seed alone, with the seeds of all of them."""
    lines: dict[str, Line] = {}
    for run in group:
        for line in lines_of(run, label):
            whole = lines.setdefault(line.name, Line(label, line.name, line.axis))
            for x, by_seed in line.points.items():
                kept = whole.points.setdefault(x, {})
                twice = sorted(kept.keys() & by_seed.keys())
                note = f"seed {twice[0]} again in {run.name}: left out there" if twice else ""
                if note and note not in notes:
                    notes.append(note)
                for seed, figures in by_seed.items():
                    kept.setdefault(seed, figures)
    return list(lines.values())
