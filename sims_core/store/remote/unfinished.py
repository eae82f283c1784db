"""Checkpoints and finished shards of a stage that is not finished, in the bucket: another host goes
on with them when this one is gone.

Only what its maker has named as whole goes there (sims_core/common/kept.py), with the note that
says what it holds. An index lists what belongs together; it is written after what it lists.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from sims_core.common.errors import StoreError
from sims_core.common.files import remove
from sims_core.common.kept import SUFFIX, content_sha256
from sims_core.common.shown import shown
from sims_core.store.artifacts import ArtifactRef, FileEntry
from sims_core.store.behind import NOTES_FOLDER
from sims_core.store.remote.client import Client
from sims_core.store.remote.lease import Lease
from sims_core.store.remote.names import (
    PROGRESS,
    epoch_name,
    epoch_of,
    files_of,
    opened_json,
    sealed_json,
)
from sims_core.store.store import Store

logger = logging.getLogger("sims_core.store")

BEGUN = "execution.json"
"""How the stage was begun (sims_core/engine/run.py): nothing is gone on with without it."""
STATE = "state/"


def _folder(ref: ArtifactRef) -> str:
    return f"{PROGRESS}/{ref.digest}"


def _index_key(ref: ArtifactRef, epoch: int) -> str:
    return f"{_folder(ref)}/{epoch_name(epoch)}.json"


def _data_key(ref: ArtifactRef, epoch: int, sha256: str) -> str:
    return f"{_folder(ref)}/{epoch_name(epoch)}/{sha256}"


def _epoch_of(key: str) -> int:
    """Of an index or of data; 0 if it is neither."""
    return epoch_of(key.split("/")[2].removesuffix(".json"))


def forget(client: Client, store: Store, ref: ArtifactRef) -> None:
    """Removes the bucket's unfinished work: the artifact is there."""
    client.delete([key for key, _ in client.list(_folder(ref))])
    _epoch_path(store, ref).unlink(missing_ok=True)


def restore(client: Client, store: Store, ref: ArtifactRef, epoch: int) -> None:
    """Brings the latest unfinished work of an earlier epoch into the store, unless it is this
    store's own, which is at least as new there. The caller holds the lease of `epoch`."""
    keys = [key for key, _ in client.list(_folder(ref)) if key.endswith(".json")]
    latest = max((e for e in map(_epoch_of, keys) if e < epoch), default=0)
    target = store.progress_path(ref)
    if not latest or ((target / BEGUN).is_file() and _own_epoch(client, store, ref) >= latest):
        return
    found = client.get(_index_key(ref, latest))
    fields = opened_json(found[0]) if found is not None else {}
    files = files_of(fields)
    if files is None or any(n != BEGUN and not n.startswith(STATE) for n in files):
        logger.warning("%s: the bucket's unfinished work is damaged, and is not used", ref.short)
        return
    folder = store.root / "progress" / f"trash-{uuid.uuid4().hex}"
    try:
        brought = [
            name
            for name, entry in files.items()
            if _bring(client, _data_key(ref, latest, entry.sha256), folder / name, entry)
        ]
        if BEGUN in brought:
            remove(target)
            os.replace(folder, target)
            host = shown(fields.get("host", "?"), 80)
            logger.info(
                "%s: goes on with %d files of unfinished work of host %s, from the bucket",
                *(ref.short, len(brought), host),
            )
    finally:
        remove(folder)


def _bring(client: Client, key: str, path: Path, entry: FileEntry) -> bool:
    """Whether the file came as it was; one that did not is made again by the stage."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() or client.sha256(key, path, entry.size) != entry.sha256:
        logger.warning("unfinished work is damaged in the bucket: %s; it is made again", key)
        path.unlink(missing_ok=True)
        return False
    return True


def _epoch_path(store: Store, ref: ArtifactRef) -> Path:
    """The file that says which epoch's work, in which bucket, the store's own is. It lies apart
    from that work, which the stage removes when it likes to."""
    return store.root / NOTES_FOLDER / f"{ref.digest}.epoch"


def _own_epoch(client: Client, store: Store, ref: ArtifactRef) -> int:
    try:
        bucket, epoch = _epoch_path(store, ref).read_text().split()
        return int(epoch) if bucket == client.id else 0
    except (OSError, ValueError):
        return 0


class Upload:
    """Brings a stage's unfinished work to the bucket every so often, in a thread of its own."""

    def __init__(self, client: Client, store: Store, lease: Lease, every_s: float) -> None:
        self.client, self.store, self.lease, self.every_s = client, store, lease, every_s
        self._sent: dict[str, FileEntry] = {}
        self._is_first = True
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._go_on, daemon=True, name="sims-upload")

    def start(self) -> Upload:
        """From now on."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Waits for what is under way."""
        self._over.set()
        self._thread.join()

    def _go_on(self) -> None:
        while not self._over.wait(self.every_s):
            if not self.lease.lost:
                self.once()

    def once(self) -> None:
        """Brings there what is whole now. What fails is tried again at the next time."""
        try:
            self._once()
        except FileNotFoundError:  # the stage has taken it into the artifact
            pass
        except (StoreError, OSError) as error:
            logger.warning("%s: unfinished work is not uploaded: %s", self.lease.ref.short, error)

    def _once(self) -> None:
        ref, epoch = self.lease.ref, self.lease.epoch
        progress = self.store.progress_path(ref)
        links = self.store.root / "progress" / f"trash-{uuid.uuid4().hex}"
        links.mkdir()
        try:
            found = _linked(progress, links)
            entries = {name: FileEntry.of(p) for name, p in found.items()}
            if entries == self._sent or not any(name != BEGUN for name in entries):
                return
            known = {entry.sha256 for entry in self._sent.values()}
            for name, entry in entries.items():
                if entry.sha256 not in known:
                    self.client.put(_data_key(ref, epoch, entry.sha256), found[name])
        finally:
            shutil.rmtree(links, ignore_errors=True)
        said = {name: entry.model_dump() for name, entry in entries.items()}
        index = {"host": os.uname().nodename, "files": said}
        self.client.put(_index_key(ref, epoch), sealed_json(index))
        _epoch_path(self.store, ref).write_text(f"{self.client.id} {epoch}")
        gone = known - {entry.sha256 for entry in entries.values()}
        self.client.delete([_data_key(ref, epoch, sha256) for sha256 in sorted(gone)])
        self._sent = entries
        if self._is_first:  # this epoch's work has all that those before had
            keys = [key for key, _ in self.client.list(_folder(ref))]
            self.client.delete([key for key in keys if _epoch_of(key) < epoch])
            self._is_first = False


def _linked(progress: Path, links: Path) -> dict[str, Path]:
    """What is whole of a stage's unfinished work, by its path there: names of the same files that
    stay when their maker replaces them."""
    found: dict[str, Path] = {}
    for number, (name, path) in enumerate(_whole(progress)):
        copy = links / str(number)
        with suppress(FileNotFoundError):  # it was replaced meanwhile, and comes the next time
            try:
                copy.hardlink_to(path)
            except FileNotFoundError:
                raise
            except OSError:  # a file system without links
                shutil.copyfile(path, copy)
            found[name] = copy
    return found


def _whole(progress: Path) -> Iterator[tuple[str, Path]]:
    """BEGUN, and every file that a note vouches for, with the note."""
    if (progress / BEGUN).is_file():
        yield BEGUN, progress / BEGUN
    for note in sorted((progress / "state").rglob(f"*{SUFFIX}")):
        kept = note.with_name(note.name.removesuffix(SUFFIX))
        try:
            if note.read_bytes() != content_sha256(kept).encode():
                continue
        except OSError:  # it is being replaced, or goes into the artifact
            continue
        inside = [path for path in kept.rglob("*") if path.is_file()] if kept.is_dir() else [kept]
        for path in (*inside, note):
            yield path.relative_to(progress).as_posix(), path
