"""Artifacts in a bucket: brought there, fetched, and which of two that differ is the one."""

from __future__ import annotations

import logging
import os
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sims_core.common.errors import DamagedArtifact
from sims_core.common.files import remove, sync
from sims_core.store.artifacts import MANIFEST_FILE, ArtifactRef, FileEntry, Manifest
from sims_core.store.remote.client import Client
from sims_core.store.remote.names import blob_key, checked_manifest, manifest_key, record_key
from sims_core.store.store import Store

logger = logging.getLogger("sims_core.store")

REQUESTS_AT_ONCE = 8


class Entries:
    """The artifacts of one bucket."""

    def __init__(self, client: Client, store: Store) -> None:
        self.client, self.store = client, store
        self._damaged: dict[ArtifactRef, str] = {}
        """ETag of the manifest of which files were found damaged; what is wrong with an entry is
        said once, and not found out again while somebody else may be mending it."""
        self._bad_blobs: set[str] = set()

    def manifest(self, ref: ArtifactRef) -> tuple[Manifest, bytes] | None:
        """The manifest, and as it is written; None: there is none that can be believed."""
        found = self.client.get(manifest_key(ref))
        if found is None:
            return None
        content, e_tag = found
        try:
            return checked_manifest(content, ref), content
        except DamagedArtifact as error:
            self._tell(ref, e_tag, str(error))
            return None

    def _tell(self, ref: ArtifactRef, e_tag: str, problem: str) -> None:
        if self._damaged.get(ref) != e_tag:
            self._damaged[ref] = e_tag
            logger.warning("damaged in the bucket: %s", problem)

    def look_again(self, ref: ArtifactRef) -> None:
        """What was found damaged may have been mended."""
        self._damaged.pop(ref, None)

    def is_there(self, manifest: Manifest) -> bool:
        """Whether every file of an entry is there, by its size."""
        entries = manifest.files.values()
        with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
            sizes = pool.map(lambda e: self.client.size(blob_key(e.sha256)), entries)
            return all(size == e.size for size, e in zip(sizes, entries, strict=True))

    def fetch(self, ref: ArtifactRef) -> Manifest | None:
        """Brings an entry into the store, every byte of it checked; None: there is none, or it is
        damaged, which is said. The caller holds its lock."""
        got = self.client.get(manifest_key(ref))
        if got is None or self._damaged.get(ref) == got[1]:
            return None
        content, e_tag = got
        folder = self.store.root / "progress" / f"trash-{uuid.uuid4().hex}"
        try:
            manifest = checked_manifest(content, ref)
            folder.mkdir()
            self._download(manifest.files, folder)
            (folder / MANIFEST_FILE).write_bytes(content)
            sync(folder)
            self.store.swap_in(folder, self.store.path(ref))
        except DamagedArtifact as error:
            self._tell(ref, e_tag, str(error))
            return None
        finally:
            remove(folder)
        self._take_record(ref, manifest)
        size = sum(entry.size for entry in manifest.files.values())
        logger.info("%s: fetched from the bucket, %d bytes", ref.short, size)
        return manifest

    def _download(self, files: dict[str, FileEntry], folder: Path) -> None:
        """Raises DamagedArtifact for the first file that is not what it should be."""

        def bring(item: tuple[str, FileEntry]) -> None:
            name, entry = item
            path, key = folder / name, blob_key(entry.sha256)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.open("xb").close()
            except (FileExistsError, NotADirectoryError):  # a/b beside a
                raise DamagedArtifact(f"{name!r} is in the way of another file") from None
            if self.client.sha256(key, path, entry.size) != entry.sha256:
                self._bad_blobs.add(entry.sha256)
                raise DamagedArtifact(f"{key}, {name}: missing, cut or altered")

        with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
            for _ in pool.map(bring, files.items()):
                pass

    def _take_record(self, ref: ArtifactRef, manifest: Manifest) -> None:
        """What the bucket says of how it was computed, in the place of what the store says."""
        found, path = self.client.get(record_key(manifest)), self.store.record_path(ref)
        path.unlink(missing_ok=True)
        if found is not None:
            partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
            partial.write_bytes(found[0])
            os.replace(partial, path)
            if self.store.record(ref) is None:  # damaged
                path.unlink(missing_ok=True)
        self.store.settle(ref)

    def publish(self, ref: ArtifactRef, replace: bool) -> Manifest:
        """Brings a whole entry of the store there. Its files come first and its manifest last.

        Where there is another already that is whole, that one is taken: its bytes come into the
        store. The caller holds the entry's lock.

        Args:
            replace: Take the store's all the same.

        Returns:
            The manifest of what the bucket and the store have now.
        """
        ours, folder = self.store.manifest(ref), self.store.path(ref)
        content = (folder / MANIFEST_FILE).read_bytes()
        self._upload(folder, ours.files)
        if (record := self.store.record_path(ref)).is_file():
            self.client.put(record_key(ours), record.read_bytes())
        key = manifest_key(ref)
        while not self.client.create(key, content):
            found = self.client.get(key)
            if found is None:  # it was being written, or has just gone
                continue
            theirs = self.manifest(ref)
            if theirs is not None and theirs[0].content == ours.content:
                break
            self.look_again(ref)
            if theirs is not None and not replace and (taken := self.fetch(ref)) is not None:
                logger.info("%s: another host was first, and its bytes are taken", ref.short)
                return taken
            if self.client.replace(key, content, found[1]):
                break
        return ours

    def _upload(self, folder: Path, files: dict[str, FileEntry]) -> None:
        """Those that are not there by size, and those that were found damaged."""

        def bring(item: tuple[str, FileEntry]) -> None:
            name, entry = item
            key = blob_key(entry.sha256)
            if entry.sha256 in self._bad_blobs or self.client.size(key) != entry.size:
                self.client.put(key, folder / name)
                self._bad_blobs.discard(entry.sha256)

        with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
            for _ in pool.map(bring, files.items()):
                pass
