"""Runs that have left a folder under runs/: what they were, what they found, what differs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from sims_core.common.errors import BadInput
from sims_core.common.files import read_regular
from sims_core.evaluation.config import EvaluationConfig
from sims_core.reports.files import METRICS_TABLE, PAGE, REPORT, SUMMARY_FILE
from sims_core.store.store import Store

SEEDS = ("seed", "seeds")


@dataclass(frozen=True)
class PastRun:
    """A folder runs/<name>, read as it is: an earlier or later version may have written it."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @cached_property
    def content(self) -> dict[str, Any]:
        """Its run.json; empty where there is none, or none that can be read."""
        try:
            found = json.loads(read_regular(self.folder / SUMMARY_FILE))
        except (OSError, ValueError, RecursionError):
            return {}
        return _of_their_types(found) if isinstance(found, dict) else {}

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """Its table of figures; empty where there is none, or none that can be read."""
        try:
            table = pq.read_table(pa.BufferReader(read_regular(self.folder / METRICS_TABLE)))
        except (OSError, pa.ArrowException):
            return []
        found: list[dict[str, Any]] = table.to_pylist()
        return found

    @property
    def preset(self) -> str:
        """`<flow>/<preset>`, or "?"."""
        flow, preset = self.content.get("flow"), self.content.get("preset")
        return f"{flow}/{preset}" if flow and preset else "?"

    @property
    def figure(self) -> str:
        """The metric that it is about."""
        return str(self.content.get("figure", "fid"))

    @property
    def provenance(self) -> dict[str, Any]:
        """Empty where an earlier version wrote it."""
        return dict(self.content.get("provenance") or {})

    @property
    def asked(self) -> dict[str, Any]:
        """Its parameters as `sims run` takes them: those of the flow, and every override."""
        found = dict(self.provenance.get("parameters") or {})
        overrides = found.pop("overrides", None) or {}
        return found | overrides

    @property
    def parameters(self) -> dict[str, Any]:
        """Those of the flow, overrides among them by their dotted names, to the last leaf."""
        found = dict(self.provenance.get("parameters") or {})
        overrides = found.pop("overrides", None)
        return found | dict(flat(overrides if isinstance(overrides, dict) else {}))

    @property
    def neighborhoods(self) -> dict[str, int]:
        """k of each metric that is made of nearest neighbours; empty where it is not known."""
        try:
            evaluation = self.provenance["experiment"]["evaluation"]
            return EvaluationConfig.model_validate(evaluation).neighborhoods
        except (KeyError, TypeError, ValidationError):
            return {}

    @property
    def seeds(self) -> tuple[int, ...]:
        """Empty where an earlier version wrote it, which did not say."""
        return tuple(self.provenance.get("seeds") or self.content.get("seeds") or ())

    @property
    def state(self) -> str:
        """finished; unfinished; or damaged, where the store lacks what a link leads to."""
        if not self.content or self.content.get("unfinished") or not self.rows:
            return "unfinished"
        return "finished" if all(path.exists() for path in self.links) else "damaged"

    @property
    def how_far(self) -> str:
        """What is said of a run that has not ended; empty: it has."""
        if self.state != "unfinished":
            return ""
        far = self.content.get("unfinished")
        return f"{self.name} is unfinished" + (f" ({far})" if isinstance(far, str) else "")

    @cached_property
    def links(self) -> list[Path]:
        """Every link into the store."""
        return [
            path
            for parent, folders, files in os.walk(self.folder)
            for path in (Path(parent) / name for name in (*folders, *files))
            if path.is_symlink()
        ]

    @cached_property
    def size(self) -> int:
        """Bytes of its files and of every artifact that it links to, which others may share."""
        artifacts = {path.resolve() for path in self.links}
        return sum(map(_bytes_in, (self.folder, *sorted(artifacts))))

    @property
    def written(self) -> datetime:
        """When its report was made, in UTC."""
        for name in (SUMMARY_FILE, "."):
            path = self.folder / name
            if path.exists():
                return datetime.fromtimestamp(path.stat().st_mtime, UTC)
        return datetime.fromtimestamp(0, UTC)

    @property
    def report(self) -> Path:
        return self.folder / REPORT / PAGE


OBJECTS = ("provenance", "stages")
SAID = ("parameters", "experiment", "machine", "times", "libraries")
"""Objects of `provenance`."""


def _of_their_types(content: dict[str, Any]) -> dict[str, Any]:
    """A run.json without the values that are of another type than is looked for there."""
    found = {k: v for k, v in content.items() if k not in OBJECTS or isinstance(v, dict)}
    if "arms" in found and not isinstance(found["arms"], list):
        del found["arms"]
    said = found.get("provenance", {})
    said = {k: v for k, v in said.items() if k not in SAID or isinstance(v, dict)}
    for place in (found, said):
        seeds = place.get("seeds", [])
        if not isinstance(seeds, list) or not all(isinstance(seed, int) for seed in seeds):
            del place["seeds"]
    return {**found, "provenance": said} if "provenance" in found else found


def _bytes_in(folder: Path) -> int:
    """Of its files, at any depth; links are not followed."""
    return sum(
        (Path(parent) / name).lstat().st_size
        for parent, _, files in os.walk(folder)
        for name in files
    )


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of nested mappings by their dotted names."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def past_runs(store: Store) -> list[PastRun]:
    """Every run of a store, the latest first."""
    folders = [path for path in (store.root / "runs").glob("*") if path.is_dir()]
    return sorted(map(PastRun, folders), key=lambda run: (run.written, run.name), reverse=True)


def find_run(store: Store, name: str) -> PastRun:
    """A run by its name in the store, or by the path of its folder in any store.

    Raises:
        BadInput: there is none; says which there are.
    """
    known = past_runs(store)
    for run in known:
        if run.name == name:
            return run
    path = Path(name).expanduser()
    if os.sep in name and (path / SUMMARY_FILE).is_file():
        return PastRun(path.absolute())
    names = ", ".join(run.name for run in known) or "none yet"
    raise BadInput(f"no run {name!r} in the store {store.root}; runs: {names}")


def differences(runs: Sequence[PastRun]) -> dict[str, list[Any]]:
    """Every parameter that is not the same in all runs, with its value in each; None: not said.

    Where presets differ, what they fix is compared as well; then version, commit and device.
    """
    found = _unequal([run.parameters for run in runs])
    fixed = [dict(flat(run.provenance.get("experiment") or {})) for run in runs]
    found |= {name: each for name, each in _unequal(fixed).items() if name not in found}
    return found | _unequal([_made_by(run) for run in runs])


def _made_by(run: PastRun) -> dict[str, Any]:
    said = run.provenance
    libraries, machine = said.get("libraries") or {}, said.get("machine") or {}
    return {
        "version": said.get("version"),
        "commit": said.get("commit"),
        "torch": libraries.get("torch"),
        "device": machine.get("device"),
    }


def _unequal(values: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    names = dict.fromkeys(name for each in values for name in each)
    found = {name: [each.get(name) for each in values] for name in names}
    return {name: row for name, row in found.items() if any(value != row[0] for value in row)}
