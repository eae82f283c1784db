"""Writes what people look at: runs/<run name>/ with report, metrics, summary and links.

A report whose inputs have not changed since it was drawn is kept. How a run came by its stages is
no input: a page says how those were made that it was drawn after.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sims_core.common.digest import digest_of, file_sha256
from sims_core.common.files import explain_disk_errors, read_regular, write_atomically
from sims_core.common.sealed import Sealed
from sims_core.reports.base import RunDetails, report_of
from sims_core.reports.files import PAGE, REPORT, SUMMARY_FILE
from sims_core.reports.provenance import trace
from sims_core.reports.summary import RunSummary, count_stages
from sims_core.store.artifacts import ArtifactRef
from sims_core.store.leases import needing
from sims_core.store.store import Store
from sims_core.studies.plan import Plan
from sims_core.studies.running import Outcome

DRAWN_FILE = f"{REPORT}/drawn.json"
DRAWING = ("matplotlib", "jinja2", "pyarrow")
"""Libraries that a report's bytes depend on."""


class Drawn(Sealed):
    """What a run's folder was made from, and what it then held."""

    inputs: str
    """Digest of everything that the report shows, and of the code that draws it."""
    files: dict[str, str]
    """SHA-256 of each file of the folder but the summary and this one."""
    summary: RunSummary
    artifacts: tuple[str, ...] = ()
    """Where each artifact lies that the run took or made; empty where an older program drew it."""


@dataclass(frozen=True)
class RunToReport:
    """A run that has ended: what was asked, what was planned, and how its stages came about."""

    flow: str
    run_name: str
    title: str
    parameters: Mapping[str, Any]
    plan: Plan
    outcomes: Sequence[Outcome]
    unfinished: str = ""
    """How far a run is that goes on; empty: it has ended."""

    def folder(self, store: Store) -> Path:
        return store.root / "runs" / self.run_name


def write_run(store: Store, run: RunToReport) -> RunSummary:
    """Makes runs/<run name>/ what this run is, and returns the run's summary.

    Raises:
        StoreError: The disk is full.
    """
    inputs = _inputs(store, run)
    with explain_disk_errors(store.root), needing(store, (stage.ref for stage in run.plan)):
        if store.behind is None:
            return _keep(store, run, inputs) or _draw(store, run, inputs)
        with store.behind.keeping_all():
            summary = _keep(store, run, inputs) or _draw(store, run, inputs)
        store.behind.publish_run(run.folder(store))
        return summary


@cache
def _code() -> str:
    """Digest of the modules and templates that make a report, and of what they draw with."""
    files = sorted(Path(__file__).parent.rglob("*"))
    texts = {path.name: file_sha256(path) for path in files if path.suffix in (".py", ".j2")}
    return digest_of([texts, {name: version(name) for name in DRAWING}])


def _inputs(store: Store, run: RunToReport) -> str:
    """Digest of what the report depends on.

    An artifact is told by its reference, and by when its entry was made: one that was made anew may
    say other library versions.
    """

    def made(ref: ArtifactRef) -> int:
        return store.path(ref).stat().st_mtime_ns

    stages = [
        [each.arm, each.stage.label, each.stage.ref.digest, made(each.stage.ref), each.seconds]
        for each in run.outcomes
    ]
    experiment = run.plan.experiment.model_dump(mode="json")
    asked = [run.flow, run.run_name, run.title, dict(run.parameters), experiment]
    return digest_of([str(store.root), _code(), asked, stages])


def lock_run(store: Store, run_folder: Path) -> AbstractContextManager[None]:
    """One run at a time: two may share a name."""
    return store.lock(ArtifactRef(kind="run", digest=digest_of(run_folder.name)))


def _keep(store: Store, run: RunToReport, inputs: str) -> RunSummary | None:
    """The summary, if the folder that is there is what would be drawn; None if it is not."""
    folder = run.folder(store)
    with lock_run(store, folder):
        try:
            drawn = Drawn.model_validate_json(read_regular(folder / DRAWN_FILE))
            if not drawn.is_intact() or drawn.inputs != inputs or drawn.files != _files(folder):
                return None
        except (OSError, ValidationError):
            return None
        if links_of_run(folder) != _wanted_links(store, run):
            return None
        counts = count_stages(run.outcomes)
        summary = drawn.summary.model_copy(update={"stages": counts})
        _write_summary(folder, summary)
    return summary


def problems_of_run(folder: Path) -> list[str]:
    """One line for each file of a run's folder that is not as it was drawn, and each link that
    leads nowhere, by their paths in the folder."""
    dangling = [
        f"{name}: leads to nothing" for name in links_of_run(folder) if not (folder / name).exists()
    ]
    try:
        drawn = Drawn.model_validate_json(read_regular(folder / DRAWN_FILE))
    except FileNotFoundError:
        if not _files(folder) and not (folder / SUMMARY_FILE).exists():  # a run that goes on
            return dangling
        return [*dangling, f"{DRAWN_FILE}: missing"]
    except (OSError, ValidationError):
        return [*dangling, f"{DRAWN_FILE}: unreadable"]
    if not drawn.is_intact():
        return [*dangling, f"{DRAWN_FILE}: differs from its checksum"]
    found = _files(folder)
    lines = [f"{name}: missing" for name in sorted(drawn.files.keys() - found.keys())]
    for name, sha256 in found.items():
        if name not in drawn.files:
            lines.append(f"{name}: was not drawn")
        elif sha256 != drawn.files[name]:
            lines.append(f"{name}: content differs from its SHA-256")
    try:
        summary = RunSummary.model_validate_json(read_regular(folder / SUMMARY_FILE))
        if summary.model_copy(update={"stages": drawn.summary.stages}) != drawn.summary:
            lines.append(f"{SUMMARY_FILE}: differs from what was found")
    except (OSError, ValidationError):
        lines.append(f"{SUMMARY_FILE}: missing or unreadable")
    return [*dangling, *lines]


def artifacts_of_run(folder: Path) -> tuple[set[str], bool]:
    """Where each artifact lies that a run's folder tells of, or leads to; and whether that is all
    that it needs, which is not known where the folder is damaged or an older program drew it."""
    links = {"/".join(Path(target).parts[-3:]) for target in links_of_run(folder).values()}
    try:
        drawn = Drawn.model_validate_json(read_regular(folder / DRAWN_FILE))
    except FileNotFoundError:
        return links, True
    except (OSError, ValidationError):
        return links, False
    return links | set(drawn.artifacts), drawn.is_intact() and bool(drawn.artifacts)


def _files(folder: Path) -> dict[str, str]:
    """SHA-256 of the drawn files of a run's folder by their relative paths."""
    found = {
        path.relative_to(folder).as_posix(): path
        for path in (*folder.glob("*"), *folder.glob(f"{REPORT}/*"))
        if path.is_file()
    }
    return {
        name: file_sha256(path)
        for name, path in sorted(found.items())
        if name not in (DRAWN_FILE, SUMMARY_FILE)
    }


def links_of_run(folder: Path) -> dict[str, str]:
    """Where each link of a run's folder leads, by its relative path."""
    found: dict[str, str] = {}
    for parent, folders, files in os.walk(folder):
        for path in (Path(parent) / name for name in (*folders, *files)):
            if path.is_symlink():
                found[path.relative_to(folder).as_posix()] = str(path.readlink())
    return found


def _wanted_links(store: Store, run: RunToReport) -> dict[str, str]:
    """The plan's links into the store, relative and valid from the run's folder."""
    folder = run.folder(store)
    return {
        relative: os.path.relpath(store.path(ref), (folder / relative).parent)
        for relative, ref in run.plan.links
    }


def _draw(store: Store, run: RunToReport, inputs: str) -> RunSummary:
    """Makes the folder anew."""
    run_folder = run.folder(store)
    summary = RunSummary(
        run=run.run_name,
        flow=run.flow,
        preset=str(run.parameters["preset"]),
        store=str(store.root),
        report=str(run_folder / REPORT / PAGE),
        stages=count_stages(run.outcomes),
        unfinished=run.unfinished,
        **report_of(run.plan).findings(store, run.plan),
        provenance=trace(
            store,
            dict(run.parameters),
            run.plan.experiment.model_dump(mode="json"),
            run.plan.seed,
            run.outcomes,
        ),
    )
    folder = store.root / "progress" / f"run-{uuid.uuid4().hex}"
    try:
        _fill(store, run, summary, folder)
        artifacts = tuple(dict.fromkeys(stage.ref.location for stage in run.plan))
        drawn = Drawn(inputs=inputs, files=_files(folder), summary=summary, artifacts=artifacts)
        (folder / DRAWN_FILE).write_text(drawn.sealed().model_dump_json())
        _publish(store, folder, run_folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return summary


def _publish(store: Store, folder: Path, run_folder: Path) -> None:
    """Puts `folder` in the place of `run_folder`."""
    with lock_run(store, run_folder):
        store.swap_in(folder, run_folder)


def _fill(store: Store, run: RunToReport, summary: RunSummary, folder: Path) -> None:
    """Report, metrics, summary and links, in a folder that becomes the run's."""
    from sims_core.reports.page import (  # matplotlib and pyarrow take a second to import
        metric_rows,
        render_report,
        write_metrics,
    )
    from sims_core.reports.paper_files import write_paper_files

    (folder / REPORT).mkdir(parents=True)
    details = RunDetails(run.title, run.parameters, run.plan, run.outcomes)
    page = render_report(store, summary, details, folder / REPORT)
    (folder / REPORT / PAGE).write_text(page)
    write_metrics(folder, metric_rows(store, summary, run.plan))
    _write_summary(folder, summary)
    write_paper_files(folder)
    for relative, target in _wanted_links(store, run).items():
        (folder / relative).parent.mkdir(parents=True, exist_ok=True)
        (folder / relative).symlink_to(target)


def _write_summary(folder: Path, summary: RunSummary) -> None:
    content = summary.model_dump_json(indent=2, exclude_defaults=True)
    write_atomically(folder / SUMMARY_FILE, content)
