"""A bucket, or a folder in its place, through obstore: the few requests that are made of it, and
errors in one line without credentials."""

from __future__ import annotations

import hashlib
import os
import re
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from sims_core.common.errors import BadInput, StoreError

try:
    import obstore
    from obstore import exceptions
    from obstore.store import LocalStore, from_url
except ImportError:
    raise BadInput(
        "SIMS_REMOTE is set, and a bucket needs obstore: pip install 'sims-loop[remote]'"
    ) from None

if TYPE_CHECKING:
    from obstore.store import ObjectStore, RetryConfig

SCHEMES = ("s3", "gs", "az", "file")
VALID = "s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or file:///folder"
CONDITIONS = (
    "runs on several hosts would overwrite each other; take a bucket with conditional puts "
    "(S3, Google, Azure, MinIO, SeaweedFS)"
)
SMALL_BYTES = 64 << 20
"""No manifest, lease or index is larger; what is in their place is not read."""
PART_BYTES = 16 << 20
"""Read by one request, which has half a minute for it."""
RETRY_S = 60
"""A bucket that does not answer is asked again for so long."""
QUICK_S = 10
"""The same at the start of a command, where somebody waits."""


class BucketError(StoreError, ConnectionError):
    """The bucket does not answer, or refuses; what may pass is worth another attempt."""


class Client:
    """What is asked of one bucket. Keys are relative to its prefix.

    Raises, in every method:
        BucketError: it does not answer, or refuses.
    """

    def __init__(self, store: ObjectStore, url: str) -> None:
        self._store = store
        self.url = url
        self.id = hashlib.sha256(url.encode()).hexdigest()[:16]
        """Names the bucket in a store's notes."""

    def get(self, key: str) -> tuple[bytes, str] | None:
        """A small object's content and ETag; None if there is none."""
        with self._explained("read", key):
            try:
                found = obstore.get(self._store, key)
            except (FileNotFoundError, exceptions.NotFoundError):
                return None
            if found.meta["size"] > SMALL_BYTES:
                return b"", found.meta["e_tag"] or ""
            return bytes(found.bytes()), found.meta["e_tag"] or ""

    def size(self, key: str) -> int | None:
        """An object's size in bytes; None if there is none."""
        with self._explained("read", key):
            try:
                return obstore.head(self._store, key)["size"]
            except (FileNotFoundError, exceptions.NotFoundError):
                return None

    def create(self, key: str, content: bytes) -> bool:
        """Writes a new object; False: there is one, or somebody is writing one."""
        with self._explained("write", key):
            try:
                obstore.put(self._store, key, content, mode="create", use_multipart=False)
            except (FileExistsError, exceptions.AlreadyExistsError):
                return False
            return True

    def replace(self, key: str, content: bytes, e_tag: str) -> bool:
        """Writes an object anew; False: it is no longer the one of that ETag.

        A folder knows no such condition; there it is written in any case.
        """
        with self._explained("write", key):
            try:
                obstore.put(self._store, key, content, mode={"e_tag": e_tag}, use_multipart=False)
            except (FileNotFoundError, exceptions.NotFoundError, exceptions.PreconditionError):
                return False
            except NotImplementedError:
                obstore.put(self._store, key, content, use_multipart=False)
            return True

    def put(self, key: str, content: bytes | Path) -> None:
        """Writes an object, in the place of what there was: whole or not at all."""
        with self._explained("write", key):
            obstore.put(self._store, key, content)

    def delete(self, keys: Sequence[str]) -> None:
        """Removes objects; those that are not there are no error."""
        for key in keys:
            with (
                self._explained("remove", key),
                suppress(FileNotFoundError, exceptions.NotFoundError),
            ):
                obstore.delete(self._store, key)

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Key and size of each object under a prefix, which is whole parts of a path."""
        with self._explained("list", prefix):
            for page in obstore.list(self._store, prefix):
                for meta in page:
                    yield meta["path"], meta["size"]

    def sha256(self, key: str, path: Path | None = None, size: int | None = None) -> str | None:
        """SHA-256 of an object, read to its end; None if there is none, or it has another size.

        Args:
            path: A new file that its bytes are written to.
            size: What it must have.
        """
        digest = hashlib.sha256()
        there = self.size(key)
        if there is None or size not in (None, there):
            return None
        with self._explained("read", key), (path or Path(os.devnull)).open("wb") as file:
            for start in range(0, there, PART_BYTES):
                length = min(PART_BYTES, there - start)
                try:
                    part = obstore.get_range(self._store, key, start=start, length=length)
                except (FileNotFoundError, exceptions.NotFoundError):
                    return None
                digest.update(part)
                file.write(part)
        return digest.hexdigest()

    @contextmanager
    def _explained(self, did: str, key: str) -> Iterator[None]:
        """One line for what obstore raises. Its own text goes on with what it knows of the request,
        which may name a token."""
        try:
            yield
        except (exceptions.BaseError, NotImplementedError, PermissionError) as error:
            said = re.sub(r"\?[^\s)\"']*", "", str(error).split("\n")[0])
            raise BucketError(
                f"the bucket {self.url} cannot {did} {key}: {said}; what was made is kept in the "
                "store: run the same command again when it answers"
            ) from None

    def check(self) -> None:
        """Proves that it can be written and that it keeps its conditions.

        Raises:
            BadInput: It does not: two hosts could both believe that they were first.
        """
        key = f"probe/{uuid.uuid4().hex}"
        try:
            made, again = self.create(key, b"1"), self.create(key, b"2")
            if not made or again:
                raise BadInput(
                    f"SIMS_REMOTE: {self.url} does not refuse to create what is there already "
                    f"(If-None-Match): {CONDITIONS}"
                )
            if not isinstance(self._store, LocalStore) and self.replace(key, b"3", '"another"'):
                raise BadInput(
                    f"SIMS_REMOTE: {self.url} replaces an object though it is not the one that "
                    f"was meant (If-Match): {CONDITIONS}"
                )
        finally:
            with suppress(BucketError):
                self.delete([key])


def connect(url: str, retry_s: float = RETRY_S) -> Client:
    """The bucket of a URL, with the credentials that obstore finds in the environment.

    Raises:
        BadInput: The URL is not one of a bucket, or has credentials in it.
    """
    parts = urlsplit(url)
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise BadInput(
            f"SIMS_REMOTE must be no more than {VALID}: credentials belong into the environment "
            "(AWS_ACCESS_KEY_ID and so on; see docs/bucket.md)"
        )
    folder = Path(unquote(parts.path))
    is_named = parts.netloc if parts.scheme != "file" else folder.is_absolute()
    if parts.scheme not in SCHEMES or not is_named or (parts.scheme == "file" and parts.netloc):
        raise BadInput(f"SIMS_REMOTE is {url!r}: want {VALID}")
    if parts.scheme == "file":
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInput(
                f"SIMS_REMOTE: {folder} cannot be made: {error.strerror}; want a folder "
                "that can be written"
            ) from None
        return Client(LocalStore(folder), url)
    # No client_options: those of the environment (AWS_ALLOW_HTTP) would count no more.
    retries: RetryConfig = {"max_retries": 30, "retry_timeout": timedelta(seconds=retry_s)}
    try:
        return Client(from_url(url, retry_config=retries), url)
    except (exceptions.BaseError, ValueError) as error:
        said = str(error).split("\n")[0]
        raise BadInput(f"SIMS_REMOTE is {url!r}: {said}; want {VALID}") from None
