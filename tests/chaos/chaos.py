"""Kills real commands at random instants until they end, and compares every byte.

    python tests/chaos/chaos.py [--kills 40] [--seed 0] [--minutes 18] [--only NAME ...] [--json]

Each scenario (scenarios.py) runs once undisturbed. Then it runs in an empty store and is killed by
SIGKILL, the command alone or with all that it started, at an instant of the clock or just before
one of its file operations, both drawn from the seed; and again, until it ends; and then in the
next store, until it has had its share of the kills. After each end

- every artifact's SHA-256 equals the undisturbed run's, manifests included;
- no stage was computed twice, and no kill cost a training more than one checkpoint interval;
- `sims store verify` finds all whole;
- nothing is in the store that was not in the undisturbed one's but what `sims store gc` names, and
  nothing when that has removed it; and no process is left.

Prints a table and exits 1 if any of it is not so. Begins no round after so many minutes. The clone
must not change meanwhile: manifests name its commit.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rounds import Quiet, Round
from scenarios import Scenario, scenarios

COLUMNS = {
    "kills": "kills",
    "by_clock": "by clock",
    "by_operation": "before a file operation",
    "starts": "starts",
    "rounds": "stores",
    "artifacts": "artifacts",
    "different": "of other bytes",
    "computed_twice": "stages computed twice",
    "most_lost": "most lost by a kill, checkpoint intervals",
    "left": "left but for gc",
}


@dataclass
class Figures:
    """What was counted in one scenario."""

    scenario: str
    kills: int = 0
    by_clock: int = 0
    by_operation: int = 0
    starts: int = 0
    rounds: int = 0
    artifacts: int = 0
    different: int = 0
    computed_twice: int = 0
    most_lost: float = 0.0
    left: int = 0
    problems: list[str] = field(default_factory=list)

    def add(self, done: Round) -> None:
        """Counts a round that has ended."""
        self.kills += len(done.kills)
        self.by_clock += sum(not kill.before_operation for kill in done.kills)
        self.by_operation += sum(kill.before_operation > 0 for kill in done.kills)
        self.starts += done.starts
        self.rounds += 1
        self.artifacts += done.artifacts
        self.different += len(done.different)
        self.computed_twice += done.computed_twice
        self.most_lost = max(self.most_lost, round(done.most_lost, 2))
        self.left += len(done.left)
        self.problems += done.problems


def shares(chosen: list[Scenario], kills: int) -> list[int]:
    """How many kills each gets: together so many, and none none."""
    whole = sum(each.share for each in chosen)
    found = [max(1, kills * each.share // whole) for each in chosen]
    found[0] = max(1, found[0] + kills - sum(found))
    return found


def run(folder: Path, kills: int, seed: int, minutes: float, only: list[str]) -> list[Figures]:
    """The figures of each scenario, which take turns, a round each."""
    chosen, until = scenarios(folder, only), time.monotonic() + 60 * minutes
    wanted = shares(chosen, kills)
    figures = [Figures(each.name) for each in chosen]
    quiet: dict[str, Quiet] = {}
    while waiting := [i for i, each in enumerate(figures) if each.kills < wanted[i]]:
        for i in waiting:
            name = chosen[i].name
            if time.monotonic() > until:
                return figures
            if name not in quiet:
                print(f"{name}: undisturbed", file=sys.stderr, flush=True)
                quiet[name] = Quiet(chosen[i], folder / f"quiet-{i}")
            number = figures[i].rounds
            draws = random.Random(f"{seed} {name} {number}")  # noqa: S311 - no secret
            done = Round(
                quiet[name],
                folder / f"round-{i}-{number}",
                draws,
                wanted[i] - figures[i].kills,
                until + 120,
            )
            figures[i].add(done)
            print(
                f"{name}: {figures[i].kills} of {wanted[i]} kills, {len(done.problems)} problems",
                file=sys.stderr,
                flush=True,
            )
    return figures


def table(figures: list[Figures]) -> str:
    """A row a scenario, a column a figure."""
    rows = [["scenario", *COLUMNS.values()]]
    rows += [[f.scenario, *(str(getattr(f, name)) for name in COLUMNS)] for f in figures]
    rows.append(["together", *(str(_together(figures, name)) for name in COLUMNS)])
    rows.insert(1, ["---"] * len(rows[0]))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _together(figures: list[Figures], name: str) -> float:
    values = [getattr(each, name) for each in figures]
    return max(values) if name == "most_lost" else sum(values)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=18)
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME")
    parser.add_argument("--json", action="store_true", dest="as_json")
    asked = parser.parse_args()
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="sims-chaos-"))
    figures = run(folder, asked.kills, asked.seed, asked.minutes, asked.only)
    seconds = round(time.monotonic() - began)
    problems = [f"{each.scenario}: {line}" for each in figures for line in each.problems]
    if not problems:  # else the stores and logs are needed
        shutil.rmtree(folder)
    if asked.as_json:
        told = {"seed": asked.seed, "seconds": seconds}
        print(json.dumps({**told, "scenarios": [asdict(each) for each in figures]}))
    else:
        print(table(figures))
        print(f"seed {asked.seed}, {seconds} s")
    for line in problems:
        print(line, file=sys.stderr)
    short = sum(each.kills for each in figures) < asked.kills
    if short:
        print(f"not all of {asked.kills} kills within {asked.minutes:g} minutes", file=sys.stderr)
    return 1 if problems or not any(each.kills for each in figures) else 0


if __name__ == "__main__":
    sys.exit(main())
