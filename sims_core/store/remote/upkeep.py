"""Whether all is right in a bucket, and how much there is of what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from sims_core.common.errors import DamagedArtifact
from sims_core.store.artifacts import ArtifactRef, Manifest
from sims_core.store.remote.client import Client
from sims_core.store.remote.names import (
    BLOB_KEY,
    BLOBS,
    LEASES,
    MANIFESTS,
    PROGRESS,
    RECORDS,
    RUNS,
    blob_key,
    checked_manifest,
    manifest_key,
    ref_of,
)
from sims_core.store.remote.runs import damage_of_runs


def artifacts_in(client: Client) -> list[ArtifactRef]:
    """Every artifact that has a manifest of a well-formed name, in order."""
    found = (ref_of(key) for key, _ in client.list(MANIFESTS))
    return sorted((ref for ref in found if ref is not None), key=lambda ref: ref.location)


def _read(client: Client, ref: ArtifactRef) -> Manifest:
    """Raises DamagedArtifact: it cannot be believed."""
    found = client.get(manifest_key(ref))
    if found is None:
        raise DamagedArtifact(f"{manifest_key(ref)}: missing")
    return checked_manifest(found[0], ref)


def problems_in(client: Client) -> Iterator[str]:
    """Reads every byte: one line for each thing that is missing, cut, altered or foreign."""
    said: dict[str, bool] = {}
    for key, _ in client.list(MANIFESTS):
        if ref_of(key) is None:
            yield f"{key}: no artifact's manifest, and not used"
    for key, _ in client.list(BLOBS):
        if not BLOB_KEY.fullmatch(key):
            yield f"{key}: no blob's name, and not used"
    for ref in artifacts_in(client):
        try:
            manifest = _read(client, ref)
        except DamagedArtifact as error:
            yield str(error)
            continue
        for name, entry in sorted(manifest.files.items()):
            if entry.sha256 not in said:
                whole = client.sha256(blob_key(entry.sha256), size=entry.size) == entry.sha256
                said[entry.sha256] = whole
            if not said[entry.sha256]:
                yield f"{ref.location}/{name}: {blob_key(entry.sha256)} is missing, cut or altered"
    yield from damage_of_runs(client)


@dataclass(frozen=True)
class Usage:
    """How much a bucket holds, in bytes."""

    by_kind: dict[str, tuple[int, int]]
    """Number and bytes of the artifacts; files that several have count in each."""
    by_stage: dict[str, tuple[int, int]]
    blobs: int
    """Of all files of artifacts, each once."""
    unneeded: int
    """Of those that no artifact has: of uploads that did not come to their end, and of artifacts
    that were replaced."""
    unfinished: int
    """Checkpoints and shards of work that is not finished."""
    runs: int
    rest: int
    """Manifests, records, leases."""


def usage(client: Client) -> Usage:
    """Reads every manifest and lists everything."""
    kinds: dict[str, tuple[int, int]] = {}
    stages: dict[str, tuple[int, int]] = {}
    needed: set[str] = set()
    for ref in artifacts_in(client):
        try:
            manifest = _read(client, ref)
        except DamagedArtifact:
            size, stage = 0, "damaged"
        else:
            size = sum(entry.size for entry in manifest.files.values())
            stage = manifest.request.stage
            needed |= {blob_key(entry.sha256) for entry in manifest.files.values()}
        for groups, name in ((kinds, ref.kind), (stages, stage)):
            count, held = groups.get(name, (0, 0))
            groups[name] = count + 1, held + size
    blobs = dict(client.list(BLOBS))
    sizes = Counter[str]()
    for prefix in (PROGRESS, RUNS, MANIFESTS, RECORDS, LEASES):
        sizes[prefix] = sum(size for _, size in client.list(prefix))
    return Usage(
        by_kind=dict(sorted(kinds.items())),
        by_stage=dict(sorted(stages.items())),
        blobs=sum(blobs.values()),
        unneeded=sum(size for key, size in blobs.items() if key not in needed),
        unfinished=sizes[PROGRESS],
        runs=sizes[RUNS],
        rest=sizes[MANIFESTS] + sizes[RECORDS] + sizes[LEASES],
    )
