"""What a run would do: which stages it computes, which it shares or finds, what that will take."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from infra.cli.shell import worded
from sims_core.common.shown import shown
from sims_core.reports.forecast import Forecast, Rates, Works, measured_rates, networks
from sims_core.reports.forecast import size as shown_size
from sims_core.settings import Settings
from sims_core.store.artifacts import ArtifactRef
from sims_core.store.store import Store
from sims_core.studies.absent_files import absent_files
from sims_core.studies.freshness import Recompute, notices
from sims_core.studies.plan import Group, Plan, PlannedStage

State = Literal["compute", "shared", "cached"]
STATES: tuple[State, ...] = ("compute", "shared", "cached")
ALL_ARMS = "all arms"


@dataclass(frozen=True)
class Row:
    """A stage of a plan, and how a run would come by it."""

    arm: str
    stage: PlannedStage
    state: State
    """compute: it is made; shared: an arm before this one makes it; cached: the store has it."""

    @property
    def place(self) -> tuple[str, str]:
        """The arm and the generation, or the model, of the stage."""
        stage, arm = self.stage, self.arm or ALL_ARMS
        model = "" if stage.model == arm else stage.model
        return arm, model or (f"t={stage.t:02d}" if stage.t else "")


@dataclass(frozen=True)
class DryRun:
    """A plan beside what a store has."""

    store: Store
    plan: Plan
    rows: tuple[Row, ...]
    same: tuple[tuple[str, str], ...]
    """Arms that are the same experiment as an earlier one, and that one."""
    notes: tuple[str, ...]
    works: Works
    rates: Rates
    missing: tuple[str, ...] = ()
    """What the run starts from and the store lacks: a run would refuse to begin."""
    absent: tuple[str, ...] = ()
    """Known data and weights that the run will read and this machine lacks."""

    @classmethod
    def of(cls, store: Store, plan: Plan, missing: Sequence[str] = ()) -> DryRun:
        """Looks at every stage of a plan; writes nothing."""
        settings = Settings.read()
        recompute = Recompute.of(settings.recompute)
        if all(store.is_whole(stage.ref) for stage in plan):
            plan = plan.completed(store)
        groups, same = _different(plan.groups)
        works = Works(store)
        for stage in plan:
            works.learn(stage.request)
        rows = tuple(_rows(store, groups, recompute))
        rates = Rates()
        if any(row.state == "compute" for row in rows):
            rates = measured_rates(store, works, settings.execution().device)
        notes = [worded(line) for line in notices(store, (stage.request for stage in plan))]
        computed = (row.stage.request for row in rows if row.state == "compute")
        absent = absent_files(computed, settings.files())
        return cls(
            store,
            plan,
            rows,
            tuple(same),
            tuple(notes),
            works,
            rates,
            tuple(missing),
            tuple(absent),
        )

    def forecast(self, rows: Sequence[Row]) -> Forecast:
        """What those of the rows will take that are computed."""
        computed = (row.stage.request for row in rows if row.state == "compute")
        return Forecast.of(self.rates, self.works, computed)

    @property
    def totals(self) -> dict[str, int]:
        """How many stages are in each state, and how many depend on what others find."""
        counts = Counter(row.state for row in self.rows)
        totals = {"computed": counts["compute"], "cached": counts["cached"]}
        if counts["shared"]:
            totals["shared"] = counts["shared"]
        if undecided := self.plan.undecided:
            totals["undecided"] = undecided
        return totals

    def json(self) -> str:
        """One object for programs, with a row for each stage."""
        forecast = self.forecast(self.rows)
        found: dict[str, Any] = {
            "store": str(self.store.root),
            "stages": self.totals,
            "plan": [
                {
                    "arm": row.arm,
                    "stage": row.stage.label,
                    "state": row.state,
                    "artifact": row.stage.ref.location,
                }
                for row in self.rows
            ],
            "forecast": asdict(forecast),
            "networks": [
                {**asdict(network), "training_bytes": network.training_bytes}
                for network in networks(stage.request for stage in self.plan)
            ],
        }
        if self.same:
            found["same"] = dict(self.same)
        if self.notes:
            found["notes"] = list(self.notes)
        if self.missing:
            found["missing"] = list(self.missing)
        if self.absent:
            found["absent"] = list(self.absent)
        return json.dumps(found)

    def lines(self, every_stage: bool = False) -> Iterator[str]:
        """Text for people: a line for each arm and generation, or for each stage."""
        yield from self._stage_lines() if every_stage else self._table()
        if undecided := self.plan.undecided:
            yield f"then {undecided} stages that depend on what these find"
        yield from (f"{arm} is the same experiment as {first}" for arm, first in self.same)
        yield from self.notes
        yield from (f"missing: {shown(worded(line))}" for line in self.missing)
        yield from self.absent
        for network in networks(stage.request for stage in self.plan):
            yield (
                f"network {network.kind}: {network.parameters:,} parameters; training it holds "
                f"{shown_size(network.training_bytes)} beside what passes through it"
            )
        totals = self.totals
        shared = f"{totals['shared']} are shared, " if "shared" in totals else ""
        yield (
            f"would compute {totals['computed']} stages; {shared}{totals['cached']} are cached"
            f"{self._duration()}"
        )

    def _duration(self) -> str:
        forecast = self.forecast(self.rows)
        if not self.totals["computed"]:
            return ""
        if not forecast.seconds:
            return "; how long that takes, a first run will tell"
        unknown = ", no such stage was computed here yet" if forecast.unknown else ""
        return f"; {forecast}{unknown}, by what earlier stages took here"

    def _stage_lines(self) -> Iterator[str]:
        for row in self.rows:
            yield f"{row.state:<7}  {row.arm or ALL_ARMS}: {row.stage.label}"

    def _table(self) -> Iterator[str]:
        places: dict[tuple[str, str], list[Row]] = {}
        for row in self.rows:
            places.setdefault(row.place, []).append(row)
        cells = [
            [*place, *(str(sum(r.state == s for r in rows)) for s in STATES), str(forecast)]
            for place, rows in places.items()
            for forecast in (self.forecast(rows),)
        ]
        cells = [["arm", "", *STATES, ""], *cells]
        widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
        for line in cells:
            texts = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
            numbers = [cell.rjust(widths[n]) for n, cell in enumerate(line)][2:5]
            yield "  ".join([*texts[:2], *numbers, line[5]]).rstrip()


def _different(groups: Sequence[Group]) -> tuple[list[Group], list[tuple[str, str]]]:
    """The groups without those that are another's very stages, and which these are."""
    kept, same = list[Group](), list[tuple[str, str]]()
    known: dict[tuple[ArtifactRef, ...], str] = {}
    for name, stages in groups:
        key = tuple(stage.ref for stage in stages)
        if key and key in known:
            same.append((name, known[key]))
            continue
        known[key] = name
        kept.append((name, stages))
    return kept, same


def _rows(store: Store, groups: Sequence[Group], recompute: Recompute) -> Iterator[Row]:
    """Each stage of the groups in order."""
    made = set[ArtifactRef]()
    for arm, stages in groups:
        for stage in stages:
            state: State = "compute"
            if stage.ref in made:
                state = "shared"
            elif recompute.takes(store, stage.request):
                state = "cached"
            else:
                made.add(stage.ref)
            yield Row(arm, stage, state)
