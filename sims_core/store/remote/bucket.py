"""A bucket behind a store: the one place where its parts work together.

The store stays what everything reads and writes. It asks the bucket for what it lacks, and brings
there what it has made; the first manifest of an artifact is the one that all hosts take.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from sims_core.common.errors import DamagedArtifact, StoreError
from sims_core.store.artifacts import MANIFEST_FILE, ArtifactRef, StageRequest
from sims_core.store.behind import NOTES_FOLDER, is_evicted
from sims_core.store.remote import holds, runs, unfinished
from sims_core.store.remote.client import QUICK_S, BucketError, Client, connect
from sims_core.store.remote.entries import Entries
from sims_core.store.remote.lease import Lease, Waiting
from sims_core.store.remote.names import mark_key
from sims_core.store.store import Store

logger = logging.getLogger("sims_core.store")


class Bucket:
    """What stands behind a store; see `sims_core.store.behind.Behind`.

    Args:
        lease_s: After so long without a word from who computes a stage, another host takes over.
        upload_s: Unfinished work is brought to the bucket so often.
        cache_bytes: What artifacts may hold of the store's disk; None: no limit.
    """

    def __init__(
        self,
        client: Client,
        store: Store,
        *,
        lease_s: float = 60.0,
        upload_s: float = 60.0,
        cache_bytes: int | None = None,
    ) -> None:
        self.client, self.store = client, store
        self.lease_s, self.upload_s, self.cache_bytes = lease_s, upload_s, cache_bytes
        self.entries = Entries(client, store)

    def has(self, ref: ArtifactRef) -> bool:
        return self.entries.manifest(ref) is not None

    def have(self, ref: ArtifactRef) -> bool:
        if is_evicted(self.store.root, ref):
            if self._still_has(ref):
                return True
            holds.note(self.store, ref, "")
        if not self._fetch(ref):
            return False
        self._make_room(keep=ref)
        return True

    def _still_has(self, ref: ArtifactRef) -> bool:
        """Whether the bucket has what the store's manifest tells of."""
        try:
            ours = self.store.manifest(ref)
        except DamagedArtifact:
            return False
        theirs = self.entries.manifest(ref)
        if theirs is None or theirs[0].content != ours.content:
            return False
        return self.entries.is_there(ours)

    def _fetch(self, ref: ArtifactRef) -> bool:
        manifest = self.entries.fetch(ref)
        if manifest is None:
            return False
        self._note(ref, manifest.checksum)
        return True

    def _note(self, ref: ArtifactRef, checksum: str) -> None:
        holds.note(self.store, ref, f"{self.client.id} {checksum}")

    def _is_noted(self, ref: ArtifactRef) -> bool:
        """Whether what the store has of it was brought to the bucket, or came from there."""
        try:
            checksum = self.store.manifest(ref).checksum
        except DamagedArtifact:
            return False
        return holds.noted(self.store, ref) == f"{self.client.id} {checksum}"

    def obtain(self, ref: ArtifactRef) -> bool:
        with self.store.lock(ref):
            if self.store.is_whole(ref) or self._fetch(ref):
                return True
            if (self.store.root / NOTES_FOLDER / ref.digest).exists():
                holds.note(self.store, ref, "")  # so that a run computes it again
            return False

    def publish(self, ref: ArtifactRef) -> None:
        if not is_evicted(self.store.root, ref) and not self._is_noted(ref):
            self._publish(ref, replace=False)

    def _publish(self, ref: ArtifactRef, replace: bool) -> None:
        self._note(ref, self.entries.publish(ref, replace).checksum)

    def publish_run(self, folder: Path) -> None:
        runs.push_run(self.client, self.store, folder)

    @property
    def id(self) -> str:
        return self.client.id

    @property
    def url(self) -> str:
        return self.client.url

    def leave(self, mark: str) -> None:
        self.client.put(mark_key(mark), b"")

    def sees(self, mark: str) -> bool:
        return self.client.size(mark_key(mark)) is not None

    def keeping_all(self) -> AbstractContextManager[None]:
        return holds.keeping_all(self.store)

    @contextmanager
    def turn(self, request: StageRequest, again: bool) -> Iterator[bool]:
        ref, inputs = request.ref, list(request.inputs.values())
        lease = self._lease(ref, again)
        if lease is None:
            yield False
            return
        try:
            with holds.holding(self.store, [ref, *inputs]):
                for each in inputs:
                    self.store.open_artifact(each)
                unfinished.restore(self.client, self.store, ref, lease.epoch)
                upload = unfinished.Upload(self.client, self.store, lease, self.upload_s).start()
                try:
                    yield True
                except BaseException:
                    upload.stop()
                    if not lease.lost:
                        upload.once()
                    raise
                upload.stop()
                self._publish(ref, replace=again)
        except BaseException as error:
            lease.release(answers=not isinstance(error, BucketError))
            raise
        self._clear(lease)
        self._make_room(keep=ref)

    def _lease(self, ref: ArtifactRef, again: bool) -> Lease | None:
        """The right to compute it; None: the store has got it from the bucket meanwhile."""
        waiting = Waiting(self.client, ref, self.lease_s)
        while True:
            if not again and self._fetch(ref):
                return None
            lease = waiting.take()
            if lease is not None:
                # It may have been finished, or mended, between the look and the lease.
                self.entries.look_again(ref)
                if not again and self._fetch(ref):
                    self._clear(lease)
                    return None
                return lease
            waiting.wait()

    def _clear(self, lease: Lease) -> None:
        """The artifact is in the bucket: its unfinished work and its leases go."""
        try:
            unfinished.forget(self.client, self.store, lease.ref)
        except StoreError as error:  # the artifact is there: this is no more than room
            logger.warning("%s", error)
        lease.end()

    def _make_room(self, keep: ArtifactRef) -> None:
        """Lets files go of artifacts that were not used for longest, until the others fit.

        What the bucket does not have stays, and what somebody uses.
        """
        if self.cache_bytes is None:
            return
        with holds.letting_go(self.store) as free:
            if free:
                self._let_go(self.cache_bytes, keep)

    def _let_go(self, limit: int, keep: ArtifactRef) -> None:
        sizes = {ref: _bytes_in(self.store.path(ref)) for ref in self.store.artifacts()}
        total = sum(sizes.values())
        if total <= limit:
            return
        for ref in sorted(sizes, key=lambda each: holds.last_used(self.store, each)):
            if total <= limit:
                return
            if ref == keep or is_evicted(self.store.root, ref) or not self._is_noted(ref):
                continue
            with holds.letting_go(self.store, ref) as free:
                if free and self._still_has(ref):
                    self._evict(ref)
                    total -= sizes[ref]
                    logger.info("%s: left to the bucket, %d bytes", ref.short, sizes[ref])

    def _evict(self, ref: ArtifactRef) -> None:
        """Leaves an entry's manifest alone: runs that link to it still know what it is."""
        folder = self.store.root / "progress" / f"trash-{uuid.uuid4().hex}"
        folder.mkdir()
        (folder / MANIFEST_FILE).write_bytes((self.store.path(ref) / MANIFEST_FILE).read_bytes())
        self.store.swap_in(folder, self.store.path(ref))


def _bytes_in(folder: Path) -> int:
    """Of an entry's files, less its manifest."""
    return sum(
        (Path(parent) / name).lstat().st_size
        for parent, _, files in os.walk(folder)
        for name in files
        if name != MANIFEST_FILE
    )


def open_bucket(url: str) -> Client:
    """The bucket of a URL, having proved that it is fit.

    Raises:
        BadInput: The URL is wrong, or the bucket has no conditional puts.
        BucketError: It does not answer.
    """
    connect(url, QUICK_S).check()
    return connect(url)


def attach(
    store: Store, url: str, *, lease_s: float, upload_s: float, cache_bytes: int | None
) -> None:
    """Puts a bucket behind a store.

    Raises:
        BadInput, BucketError: As `open_bucket`.
    """
    client = open_bucket(url)
    store.behind = Bucket(
        client, store, lease_s=lease_s, upload_s=upload_s, cache_bytes=cache_bytes
    )


def bring_all(store: Store, refs: Iterable[ArtifactRef], bucket: Bucket) -> tuple[int, int]:
    """Publishes artifacts of a store that are whole; how many, and how many are not."""
    done = bad = 0
    for ref in refs:
        if is_evicted(store.root, ref):
            continue
        with store.lock(ref):
            if store.is_whole(ref):
                bucket.publish(ref)
                done += 1
            else:
                bad += 1
    return done, bad
