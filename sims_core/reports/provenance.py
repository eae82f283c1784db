"""Where a run's figures come from: what was asked, by which code, on which machine, and when."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from sims_core.common.frozen import Frozen
from sims_core.engine.run import LIBRARIES
from sims_core.engine.source import code_commit, package_version
from sims_core.settings import Settings
from sims_core.store.store import Store
from sims_core.studies.running import Outcome

NVIDIA = Path("/proc/driver/nvidia/gpus")
CPU = Path("/proc/cpuinfo")


class Machine(Frozen):
    """What wrote the report; each artifact's manifest says what computed it."""

    host: str
    system: str
    cpu: str
    cores: int
    """Logical ones that the process may use."""
    memory_bytes: int
    gpus: tuple[str, ...] = ()
    device: str
    """That of the settings; where none was named, what a stage would be computed on here."""
    threads: int | None = None
    """torch's, where they were set."""


class Times(Frozen):
    """UTC, ISO 8601. A run that found every stage in the store has no times but `written`."""

    began: str | None = None
    """When the first of the stages began that this run computed itself."""
    ended: str | None = None
    """When the last of them was finished."""
    written: str
    """When this was written."""


class Provenance(Frozen):
    """What it takes to make a run's figures again."""

    parameters: dict[str, Any]
    """Every parameter of the flow."""
    experiment: dict[str, Any]
    """Everything that preset and overrides fix, to the last field."""
    seeds: tuple[int, ...]
    """Of the run; every random number derives from them."""
    version: str | None
    """Of this package; None: it is not installed."""
    commit: str | None
    """Git commit of the code, "-dirty" after it where files differ; None: it is no clone."""
    libraries: dict[str, str]
    machine: Machine
    times: Times


def trace(
    store: Store,
    parameters: dict[str, Any],
    experiment: dict[str, Any],
    seed: int,
    outcomes: Sequence[Outcome],
) -> Provenance:
    """The provenance of a run that has just ended."""
    return Provenance(
        parameters=parameters,
        experiment=experiment,
        seeds=tuple(parameters.get("seeds") or [seed]),
        version=package_version(),
        commit=code_commit(),
        libraries={
            "python": platform.python_version(),
            **{name: version(name) for name in LIBRARIES},
        },
        machine=this_machine(),
        times=_times(store, outcomes),
    )


def this_machine() -> Machine:
    settings = Settings.read()
    return Machine(
        host=platform.node(),
        system=platform.platform(),
        cpu=_after_colon(CPU, "model name") or platform.processor() or platform.machine(),
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=psutil.virtual_memory().total,
        gpus=tuple(
            _after_colon(path, "Model") or "unknown" for path in NVIDIA.glob("*/information")
        ),
        device=settings.named_device,
        threads=settings.threads,
    )


def _after_colon(path: Path, name: str) -> str | None:
    """The value of the first line `name : value` of one of the kernel's files."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    found = [line.partition(":")[2].strip() for line in lines if line.startswith(name)]
    return found[0] if found else None


def _times(store: Store, outcomes: Sequence[Outcome]) -> Times:
    computed = [each.stage.ref for each in outcomes if not each.cached]
    records = [record for ref in computed if (record := store.record(ref))]
    ends = [datetime.fromisoformat(record.finished) for record in records]
    begins = [
        end - timedelta(seconds=record.seconds) for end, record in zip(ends, records, strict=True)
    ]
    return Times(
        began=_text(min(begins)) if begins else None,
        ended=_text(max(ends)) if ends else None,
        written=_text(datetime.now(UTC)),
    )


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds")
