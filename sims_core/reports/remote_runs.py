"""Runs that are in a bucket: looked at, and brought into a store."""

from __future__ import annotations

import logging
from pathlib import Path

from sims_core.common.errors import DamagedArtifact
from sims_core.reports.past_runs import PastRun
from sims_core.reports.run_folder import artifacts_of_run, lock_run
from sims_core.store.artifacts import ArtifactRef
from sims_core.store.remote.bucket import Bucket
from sims_core.store.remote.client import Client
from sims_core.store.remote.names import LOCATION
from sims_core.store.remote.runs import fetch_run, pull_run, run_names
from sims_core.store.store import Store

logger = logging.getLogger("sims_core.store")


def artifacts_needed(folder: Path) -> list[ArtifactRef]:
    """The artifacts that a run's folder tells of."""
    told, _ = artifacts_of_run(folder)
    return [ArtifactRef.at(location) for location in sorted(told) if LOCATION.fullmatch(location)]


def bring_run(bucket: Bucket, name: str) -> Path:
    """Brings a run's files and links into the store, in the place of a run of that name.

    Raises:
        DamagedArtifact: it is damaged in the bucket.
    """
    with lock_run(bucket.store, bucket.store.root / "runs" / name):
        return pull_run(bucket.client, bucket.store, name)


def look_at_runs(client: Client, folder: Path) -> list[PastRun]:
    """Every run of a bucket, the latest first, its files in an empty folder; without links.

    One that is damaged is said, and left out.
    """
    found = []
    for name in run_names(client):
        try:
            fetch_run(client, Store(folder), name, folder / name, links=False)
        except DamagedArtifact as error:
            logger.warning("run %s is damaged in the bucket: %s", name, error)
        else:
            found.append(PastRun(folder / name))
    return sorted(found, key=lambda run: (run.written, run.name), reverse=True)
