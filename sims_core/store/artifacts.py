"""What an artifact is: its reference, the request that names it, its manifest and its record."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Self

from pydantic import Field

from sims_core.common.digest import digest_of
from sims_core.common.frozen import Frozen

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


class Manifest(Frozen):
    """What an artifact is: written last, and equal for equal computations."""

    request: StageRequest
    execution: dict[str, Any]
    """Device, threads and batch size: the last digits of floats depend on them."""
    libraries: dict[str, str]
    details: dict[str, Any]
    """Stage's own summary: images seen, counts, losses."""
    files: dict[str, FileEntry]
    checksum: Digest
    """SHA-256 of all other fields: the manifest vouches for the files, this for the manifest."""

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Manifest:
        """The manifest of these fields, with its checksum."""
        return cls.model_validate({**fields, "checksum": digest_of(fields)})

    def is_intact(self) -> bool:
        return self.checksum == digest_of(self.model_dump(mode="json", exclude={"checksum"}))


class Record(Frozen):
    """When an artifact was computed, by which task run or process, and for how long in all."""

    computed_by: str
    finished: str
    seconds: float
