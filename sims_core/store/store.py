"""The artifact store: immutable entries named by the digest of what made them.

Layout under the root:

    artifacts/<kind>/<digest>/  manifest.json and the files that it lists
    progress/<digest>/          an unfinished artifact and its stage's own progress
    locks/<digest>.lock         held while an artifact is computed: by whom (see locks.py)
    locks/lease-*               what running work needs (see leases.py)
    locks/mark-*                that a run with arms=pool has this store (see marks.py)
    records/<digest>.json       when and how long it was computed: the one thing that differs
                                between two computations of the same artifact
    datasets/<name>.json        what each name given by `sims data import` stands for
    results/                    Prefect's results: references, a few hundred bytes each
    runs/<run name>/            what people look at: report, metrics, links into artifacts/
    cache/decoded/<digest>/     decoded images, which trainings map (see data/decoded.py)
    version                     of this layout (see version.py)
    verified                    which entries were read to the last byte, and looked how then
    bucket/<digest>             which entries a bucket has as well (see remote/holds.py)

No manifest, no artifact: an entry is made under progress/ and renamed when whole. A reader checks
every file's size and SHA-256 before it trusts, or knows that an earlier one did and that nothing
was touched since (see verdicts.py); a missing or damaged entry is computed again.
"""

from __future__ import annotations

import os
import shutil
import stat
import time
import uuid
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sims_core.common.digest import canonical_json, file_sha256
from sims_core.common.errors import DamagedArtifact, StoreError
from sims_core.common.files import (
    full_message,
    is_full,
    read_regular,
    remove,
    sync,
    sync_name,
    write_atomically,
)
from sims_core.store.artifacts import (
    MANIFEST_FILE,
    ArtifactRef,
    Manifest,
    Origin,
    Record,
    StageRequest,
)
from sims_core.store.behind import Behind
from sims_core.store.locks import locked
from sims_core.store.verdicts import Stamp, Verdicts
from sims_core.store.version import VERSION_FILE, check_version, mark_version

RECORD_FILE = "record.json"
"""Under progress/<digest>: the record of an entry whose folder may have its name already."""


TEMPORARY = ("trash-*", "run-*", "import-*")
"""Under progress/: replaced entries, half-made views, half-read archives."""


class Store:
    """A folder of artifacts. Any number of processes of one host may use it at once."""

    FOLDERS = ("artifacts", "progress", "locks", "records", "datasets", "results", "runs")

    def __init__(self, root: Path) -> None:
        """
        Raises:
            StoreError: a newer program made the store.
        """
        self.root = root
        self._has_version = check_version(root)
        self._verified: dict[ArtifactRef, str] = {}
        self._verdicts = Verdicts(root)
        self._writable = False
        self.behind: Behind | None = None
        """A bucket that other hosts have too; None without SIMS_REMOTE."""

    @classmethod
    def open(cls, root: Path | str, create: bool = True) -> Store:
        """Opens a store, making its folders, and proves that it can be written.

        Raises:
            StoreError: the path is a file, cannot be made or written, (create=False) is absent, or
                is a newer program's.
        """
        root = Path(root).expanduser().absolute()
        store = cls(root)
        if not create:
            if not (root / "artifacts").is_dir():
                raise StoreError(f"there is no store at {root}: pass `store` or set SIMS_STORE")
            return store
        probe = root / "locks" / f"probe-{uuid.uuid4().hex}"
        try:
            there = {path.name for path in root.iterdir()} if root.is_dir() else set()
            for folder in cls.FOLDERS:
                (root / folder).mkdir(parents=True, exist_ok=True)
            probe.write_bytes(b"probe")
            if not store._has_version:
                mark_version(root)
            if not there.issuperset((*cls.FOLDERS, VERSION_FILE)):
                sync_name(root / VERSION_FILE)
                with suppress(PermissionError):  # a folder of somebody else's
                    sync_name(root)
        except OSError as error:
            if is_full(error):
                raise StoreError(full_message(root)) from error
            raise StoreError(
                f"the store {root} cannot be written: {error.strerror}; "
                "pass a writable folder with `store` or SIMS_STORE"
            ) from error
        finally:
            with suppress(OSError):
                probe.unlink(missing_ok=True)
        store._sweep()
        store._writable = True
        return store

    def _sweep(self) -> None:
        """Removes what a kill left behind over a day ago of what has no name yet, or any more."""
        yesterday = time.time() - 86_400
        for pattern in TEMPORARY:
            for path in (self.root / "progress").glob(pattern):
                with suppress(FileNotFoundError):  # another process sweeps too
                    if path.lstat().st_mtime < yesterday:
                        shutil.rmtree(path, ignore_errors=True)

    def path(self, ref: ArtifactRef) -> Path:
        return self.root / ref.location

    def progress_path(self, ref: ArtifactRef) -> Path:
        return self.root / "progress" / ref.digest

    def artifacts(self) -> list[ArtifactRef]:
        """Every entry that has a well-formed name, damaged ones included, in order."""
        found = []
        for folder in sorted((self.root / "artifacts").glob("*/*")):
            try:
                found.append(ArtifactRef(kind=folder.parent.name, digest=folder.name))
            except ValidationError:
                continue
        return found

    def manifest(self, ref: ArtifactRef) -> Manifest:
        """Raises DamagedArtifact if it is missing, unreadable or another artifact's."""
        path = self.path(ref) / MANIFEST_FILE
        try:
            if path.is_symlink():  # what it points to could change unseen
                raise FileNotFoundError
            manifest = Manifest.model_validate_json(read_regular(path))
        except FileNotFoundError:
            raise DamagedArtifact(f"{ref.location}/{MANIFEST_FILE}: missing") from None
        except (ValidationError, OSError) as error:
            reason = str(error).splitlines()[0]
            raise DamagedArtifact(f"{ref.location}/{MANIFEST_FILE}: unreadable: {reason}") from None
        if not manifest.is_intact():
            raise DamagedArtifact(f"{ref.location}/{MANIFEST_FILE}: differs from its checksum")
        if manifest.request.ref != ref:
            raise DamagedArtifact(f"{ref.location}/{MANIFEST_FILE}: belongs to another artifact")
        return manifest

    def damage(self, ref: ArtifactRef) -> list[str]:
        """One line for each missing, changed or foreign file of an entry; empty if it is whole.

        Reads every byte. What is found damaged is no longer remembered as verified.
        """
        lines = self._damage(ref)
        if lines:
            self._verified.pop(ref, None)
            self._verdicts.forget(ref)
        return lines

    def _damage(self, ref: ArtifactRef) -> list[str]:
        try:
            manifest = self.manifest(ref)
        except DamagedArtifact as error:
            return [str(error)]
        folder = self.path(ref)
        present = {
            path.relative_to(folder).as_posix()
            for path in folder.rglob("*")
            if path.is_symlink() or not path.is_dir()
        }
        lines = [
            f"{ref.location}/{name}: not in the manifest"
            for name in sorted(present - {*manifest.files, MANIFEST_FILE})
        ]
        for name, entry in sorted(manifest.files.items()):
            path = folder / name
            if name not in present or path.is_symlink() or not path.is_file():
                lines.append(f"{ref.location}/{name}: missing")
            elif path.stat().st_size != entry.size:
                size = path.stat().st_size
                lines.append(f"{ref.location}/{name}: {size} bytes instead of {entry.size}")
            elif file_sha256(path) != entry.sha256:
                lines.append(f"{ref.location}/{name}: content differs from its SHA-256")
        return lines

    def is_whole(self, ref: ArtifactRef) -> bool:
        """Whether the entry exists and every byte of it is right.

        A verdict is kept, also for later processes, as long as no file of the entry was touched
        since: not a byte is read then.
        """
        try:
            stamp = Stamp(self.path(ref))
        except OSError:
            return False
        if self._verified.get(ref) == stamp.digest:
            return True
        if not self._verdicts.holds(ref, stamp):
            if self.damage(ref):
                return False
            if self._writable:
                self._verdicts.remember(ref, stamp)
        self._verified[ref] = stamp.digest
        return True

    def has(self, ref: ArtifactRef) -> bool:
        """Whether the entry is here and whole, or in the bucket behind the store."""
        return self.is_whole(ref) or (self.behind is not None and self.behind.has(ref))

    def bring(self, ref: ArtifactRef) -> bool:
        """Whether the entry is here and whole, once the bucket behind the store was asked for it.

        The caller holds its lock.
        """
        return self.is_whole(ref) or (self.behind is not None and self.behind.have(ref))

    def open_artifact(self, ref: ArtifactRef) -> Path:
        """Folder of a verified entry, which comes from the bucket if it is not here.

        Raises:
            DamagedArtifact: naming the first bad file.
        """
        if not self.is_whole(ref) and not (self.behind is not None and self.behind.obtain(ref)):
            problem = (self.damage(ref) or ["vanished"])[0]
            raise DamagedArtifact(f"{problem}; run the same command again to have it made anew")
        return self.path(ref)

    def record(self, ref: ArtifactRef) -> Record | None:
        """When and how long the entry was computed, if that is still known."""
        return read_record(self.record_path(ref))

    def record_path(self, ref: ArtifactRef) -> Path:
        return self.root / "records" / f"{ref.digest}.json"

    def write_record(self, ref: ArtifactRef, record: Record) -> None:
        write_atomically(self.record_path(ref), record.sealed().model_dump_json(), durable=False)

    def content(self, ref: ArtifactRef) -> str:
        """Digest of what the entry holds; empty if that is not known."""
        if (record := self.record(ref)) is not None and record.content:
            return record.content
        try:
            return self.manifest(ref).content
        except DamagedArtifact:
            return ""

    def lock(self, ref: ArtifactRef) -> AbstractContextManager[None]:
        """Exclusive among all processes of the host; the kernel frees it when its holder dies."""
        return locked(self.root / "locks" / f"{ref.digest}.lock", ref.short)

    def settle(self, ref: ArtifactRef) -> None:
        """Ends what a kill left of the commit of a whole entry. The caller holds its lock."""
        progress = self.progress_path(ref)
        if self.record(ref) is None:
            with suppress(OSError, DamagedArtifact):  # a store that cannot be written is read
                self.write_record(ref, read_record(progress / RECORD_FILE) or self._retold(ref))
        if os.path.lexists(progress):
            remove(progress)

    def _retold(self, ref: ArtifactRef) -> Record:
        """What the manifest still says of how the entry was computed."""
        manifest = self.manifest(ref)
        made = datetime.fromtimestamp((self.path(ref) / MANIFEST_FILE).stat().st_mtime, UTC)
        return Record(
            computed_by="unknown",
            finished=made.isoformat(timespec="milliseconds"),
            seconds=0.0,
            content=manifest.content,
            origin=manifest.origin,
        )

    def commit(
        self,
        request: StageRequest,
        made: Path,
        *,
        execution: Mapping[str, Any],
        libraries: Mapping[str, str],
        details: Mapping[str, Any],
        origin: Origin | None = None,
        record: Record | None = None,
    ) -> ArtifactRef:
        """Turns the folder `made` into the entry: writes its manifest, then renames it.

        Args:
            record: how it was computed, written with what the manifest says; it is kept beside
                `made` until then, so that a kill in between loses nothing.
        """
        files = {
            path.relative_to(made).as_posix(): {
                "size": path.stat().st_size,
                "sha256": file_sha256(path),
            }
            for path in sorted(made.rglob("*"))
            if path.is_file() and path.name != MANIFEST_FILE
        }
        manifest = Manifest.of(
            {
                "request": request.model_dump(mode="json"),
                "execution": dict(execution),
                "libraries": dict(libraries),
                "details": dict(details),
                "files": files,
                **({} if origin is None else {"origin": origin.model_dump(mode="json")}),
            }
        )
        manifest_text = canonical_json(manifest.json_fields())
        write_atomically(made / MANIFEST_FILE, manifest_text, durable=False)  # with all else, below
        _share(made)
        if record is not None:
            told = {"content": manifest.content, "origin": origin}
            record = record.model_copy(update=told)
            kept = record.sealed().model_dump_json()
            write_atomically(made.parent / RECORD_FILE, kept, durable=False)
        sync(made)
        self.swap_in(made, self.path(request.ref))
        if record is not None:
            self.write_record(request.ref, record)
        return request.ref

    def swap_in(self, made: Path, target: Path) -> None:
        """Renames the folder `made` to `target`; what was there goes in one step.

        Two callers for one target must hold a lock.
        """
        if not target.parent.is_dir():
            target.parent.mkdir(parents=True, exist_ok=True)
            sync_name(target.parent)
        if target.is_symlink() or target.is_file():
            target.unlink()
        elif target.exists():
            trash = self.root / "progress" / f"trash-{uuid.uuid4().hex}"
            os.replace(target, trash)
            shutil.rmtree(trash, ignore_errors=True)  # who opens the store sweeps as well
        os.replace(made, target)
        sync_name(target)


def read_record(path: Path) -> Record | None:
    """What a record's file says; None if it is not there or not as it was written."""
    try:
        record = Record.model_validate_json(read_regular(path))
    except (OSError, ValidationError):
        return None
    return record.unsealed() if record.is_intact() else None


def _share(folder: Path) -> None:
    """Lets whoever may read the manifest read all files: some libraries make theirs private."""
    mode = stat.S_IMODE((folder / MANIFEST_FILE).stat().st_mode)
    for path in folder.rglob("*"):
        if path.is_file() and stat.S_IMODE(path.stat().st_mode) != mode:
            path.chmod(mode)
