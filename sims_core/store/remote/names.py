"""How things are called in a bucket, and what of its contents is refused.

    blobs/<sha256>                    bytes of files, each under its digest
    manifests/<kind>/<digest>.json    an artifact: created last, by whoever is first
    records/<digest>/<content>.json   when and how long it was computed, if it has these bytes
    leases/<digest>/<epoch>           who is computing it
    progress/<digest>/<epoch>.json    what there is of an unfinished one, and under
    progress/<digest>/<epoch>/        its bytes
    runs/<name>.json, runs/<name>/    what people look at of a run: its files, and what they are
    marks/<name>                      empty: a run with arms=pool is here (see store/marks.py)

Whoever can write the bucket may put anything there: a name leads nowhere but into the folder that
is being filled.
"""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic import ValidationError

from sims_core.common.errors import DamagedArtifact
from sims_core.common.files import stays_inside
from sims_core.common.sealed import open_fields, seal_fields
from sims_core.store.artifacts import MANIFEST_FILE, ArtifactRef, FileEntry, Manifest

BLOBS, MANIFESTS, RECORDS, LEASES, PROGRESS, RUNS, MARKS = (
    *("blobs", "manifests", "records", "leases", "progress", "runs", "marks"),
)
MANIFEST_KEY = re.compile(rf"{MANIFESTS}/([a-z][a-z0-9_]*)/([0-9a-f]{{64}})\.json")
BLOB_KEY = re.compile(rf"{BLOBS}/[0-9a-f]{{64}}")
EPOCH_DIGITS = 12
LOCATION = re.compile(r"artifacts/[a-z][a-z0-9_]*/[0-9a-f]{64}")


def blob_key(sha256: str) -> str:
    return f"{BLOBS}/{sha256}"


def manifest_key(ref: ArtifactRef) -> str:
    return f"{MANIFESTS}/{ref.kind}/{ref.digest}.json"


def record_key(manifest: Manifest) -> str:
    """Of two hosts that make other bytes of one artifact each has its own."""
    return f"{RECORDS}/{manifest.request.digest}/{manifest.content}.json"


def mark_key(mark: str) -> str:
    return f"{MARKS}/{mark}"


def epoch_name(epoch: int) -> str:
    """The last part of a key, of one length, so that epochs are listed in order."""
    return f"{epoch:0{EPOCH_DIGITS}d}"


def epoch_of(name: str) -> int:
    """What `epoch_name` has named; 0 if it has not."""
    is_one = len(name) == EPOCH_DIGITS and name.isascii() and name.isdigit()
    return int(name) if is_one else 0


def ref_of(key: str) -> ArtifactRef | None:
    """The artifact whose manifest has this key; None if it is the key of something else."""
    match = MANIFEST_KEY.fullmatch(key)
    return ArtifactRef(kind=match[1], digest=match[2]) if match else None


def is_inside(name: str) -> bool:
    """Whether a relative path stays in the folder that it is relative to, and can be written."""
    return stays_inside(name, 255) and len(name.encode()) <= 1000


def checked_manifest(content: bytes, ref: ArtifactRef) -> Manifest:
    """The manifest that an object holds.

    Raises:
        DamagedArtifact: It is unreadable, altered, another artifact's, or names paths outside.
    """
    key = manifest_key(ref)
    try:
        manifest = Manifest.model_validate_json(content)
    except (ValidationError, RecursionError) as error:
        raise DamagedArtifact(f"{key}: unreadable: {str(error).splitlines()[0]}") from None
    if not manifest.is_intact():
        raise DamagedArtifact(f"{key}: differs from its checksum")
    if manifest.request.ref != ref:
        raise DamagedArtifact(f"{key}: belongs to another artifact")
    for name in manifest.files:
        if not is_inside(name) or name == MANIFEST_FILE:
            raise DamagedArtifact(f"{key}: names a file {name!r}, which is refused")
    return manifest


def sealed_json(fields: dict[str, Any]) -> bytes:
    """An object of JSON with its own checksum."""
    return json.dumps(seal_fields(fields), ensure_ascii=False).encode()


def opened_json(content: bytes) -> dict[str, Any]:
    """What was sealed; empty where it is unreadable or altered."""
    try:
        fields = json.loads(content)
        if not isinstance(fields, dict) or "checksum" not in fields:
            return {}
        found: dict[str, Any] = open_fields(fields)
    except (ValueError, RecursionError):
        return {}
    return found


def files_of(fields: dict[str, Any]) -> dict[str, FileEntry] | None:
    """The files that an index lists by their paths; None if anything is wrong with one of them."""
    try:
        files = {
            name: FileEntry.model_validate(entry) for name, entry in dict(fields["files"]).items()
        }
    except (KeyError, TypeError, ValueError):
        return None
    return files if all(map(is_inside, files)) else None
