"""What an artifact is: its reference, the request that names it, its manifest and its record."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field

from sims_core.common.digest import digest_of, file_sha256
from sims_core.common.frozen import Frozen
from sims_core.common.sealed import Sealed

MANIFEST_FILE = "manifest.json"


Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]


class ArtifactRef(Frozen):
    """One immutable entry of a store: what crosses task boundaries instead of tensors."""

    kind: Name
    digest: Digest

    @property
    def location(self) -> str:
        """Path relative to the store's root."""
        return f"artifacts/{self.kind}/{self.digest}"

    @classmethod
    def at(cls, location: str) -> ArtifactRef:
        """The artifact of this `location`.

        Raises:
            ValueError: it is none's.
        """
        _, kind, digest = location.split("/")
        return cls(kind=kind, digest=digest)

    @property
    def short(self) -> str:
        return f"{self.kind}/{self.digest[:12]}"


class StageRequest(Frozen):
    """What identifies an artifact: (stage, stage version, configuration slice, inputs)."""

    stage: Name
    version: int
    kind: Name
    config: dict[str, Any]
    inputs: dict[Name, ArtifactRef] = {}

    @cached_property
    def digest(self) -> str:
        """The artifact's name and the Prefect cache key: made here and nowhere else."""
        return digest_of(
            {
                "stage": self.stage,
                "version": self.version,
                "config": self.config,
                "inputs": {name: ref.digest for name, ref in self.inputs.items()},
            }
        )

    @cached_property
    def ref(self) -> ArtifactRef:
        """The artifact that this request names, computed or not."""
        return ArtifactRef(kind=self.kind, digest=self.digest)

    def __copy__(self) -> Self:
        """What pydantic makes changed copies from: it must not keep what names the original."""
        copied = super().__copy__()
        for name in ("digest", "ref"):
            copied.__dict__.pop(name, None)
        return copied


class FileEntry(Frozen):
    size: int
    sha256: Digest

    @classmethod
    def of(cls, path: Path) -> FileEntry:
        """Size and SHA-256 of a file, read to its end."""
        return cls(size=path.stat().st_size, sha256=file_sha256(path))


class Origin(Frozen):
    """Which code made an artifact, and of which bytes: no part of its name."""

    version: str
    """Of the package."""
    commit: str
    """Of a clone, ending in `-dirty` if something was changed; empty if it is none."""
    source: str
    """Digest of the source that the stage ran (sims_core/engine/source.py); empty if unknown."""
    inputs: dict[Name, Digest] = {}
    """What each input contained then: `Manifest.content`."""


class Manifest(Frozen):
    """What an artifact is: written last, and equal for equal computations."""

    request: StageRequest
    execution: dict[str, Any]
    """Device, threads and batch size: the last digits of floats depend on them."""
    libraries: dict[str, str]
    details: dict[str, Any]
    """Stage's own summary: images seen, counts, losses."""
    files: dict[str, FileEntry]
    origin: Origin | None = None
    """None in a manifest that is older than this field, and left out of it."""
    checksum: Digest
    """SHA-256 of all other fields: the manifest vouches for the files, this for the manifest."""

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Manifest:
        """The manifest of these fields, with its checksum."""
        return cls.model_validate({**fields, "checksum": digest_of(_said(fields))})

    def is_intact(self) -> bool:
        return self.checksum == digest_of(_said(self.model_dump(mode="json", exclude={"checksum"})))

    def json_fields(self) -> dict[str, Any]:
        """What is written."""
        return _said(self.model_dump(mode="json"))

    @property
    def content(self) -> str:
        """Digest of what the artifact's files hold."""
        return digest_of({name: entry.sha256 for name, entry in self.files.items()})


class Record(Sealed):
    """When an artifact was computed, by which task run or process, and for how long in all.

    What follows `seconds` is quickly found here; it is empty in older records.
    """

    computed_by: str
    finished: str
    seconds: float
    code: str = ""
    """Digest of all code when it was made: if it is today's, so is the source of every stage."""
    content: str = ""
    """The manifest's `content`."""
    origin: Origin | None = None
    """The manifest's."""


def _said(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Without an origin that is not known, as manifests were before they had the field."""
    return {name: v for name, v in fields.items() if not (name == "origin" and v is None)}
