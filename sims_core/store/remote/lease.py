"""Who computes a stage, among hosts that share a bucket and nothing else.

A lease is an object leases/<digest>/<epoch> that nobody can create twice. Its holder writes it anew
a few times in the time after which it expires. Who waits looks whether it changes, by the clock of
their own host; where it has not for that time, they create the next epoch's: of several one does.
A holder that was only slow finds out, and goes on: what it makes comes late, and is not taken. So a
lease saves work, and no result depends on it.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from contextlib import suppress
from typing import Any

from sims_core.common.errors import StoreError
from sims_core.common.shown import shown
from sims_core.store.artifacts import ArtifactRef
from sims_core.store.locks import TELL_S
from sims_core.store.remote.client import Client
from sims_core.store.remote.names import LEASES, epoch_name, epoch_of

logger = logging.getLogger("sims_core.store")

LONGEST_POLL_S = 5.0


def _key(ref: ArtifactRef, epoch: int) -> str:
    return f"{LEASES}/{ref.digest}/{epoch_name(epoch)}"


def _latest(client: Client, ref: ArtifactRef) -> int:
    """The highest epoch; 0 if there is none."""
    keys = (key for key, _ in client.list(f"{LEASES}/{ref.digest}"))
    return max((epoch_of(key.rpartition("/")[2]) for key in keys), default=0)


class Lease:
    """The right to compute one stage, kept until it is given back. Its thread ends with it."""

    def __init__(self, client: Client, ref: ArtifactRef, epoch: int, expires_s: float) -> None:
        self.client, self.ref, self.epoch, self.expires_s = client, ref, epoch, expires_s
        self.lost = False
        """Somebody has taken it over."""
        self._beats = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="sims-lease")

    def start(self) -> Lease:
        """Keeps it from now on."""
        self._thread.start()
        return self

    def content(self, released: bool = False) -> bytes:
        """Differs from one writing to the next, and so does its ETag."""
        me = {"host": socket.gethostname(), "pid": os.getpid(), "beat": self._beats}
        return json.dumps({**me, "released": released}).encode()

    def _beat(self) -> None:
        while not self._over.wait(self.expires_s / 3):
            with suppress(StoreError):  # out of reach: the next one may get through
                self._beats += 1
                self.client.put(_key(self.ref, self.epoch), self.content())
                if not self.lost and _latest(self.client, self.ref) > self.epoch:
                    self.lost = True
                    logger.warning(
                        "%s: another host took this over, having heard nothing from here for %g s; "
                        "whoever is first is taken",
                        *(self.ref.short, self.expires_s),
                    )

    def _stop(self) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def release(self, answers: bool = True) -> None:
        """The stage is not finished: whoever wants it may go on at once.

        Args:
            answers: Whether the bucket does; where it does not, the lease expires.
        """
        if not answers:
            self._over.set()
            return
        self._stop()
        with suppress(StoreError):  # then it expires
            if not self.lost:
                self._beats += 1
                self.client.put(_key(self.ref, self.epoch), self.content(released=True))

    def end(self) -> None:
        """The artifact is in the bucket: nobody asks for leases of it any more."""
        self._stop()
        with suppress(StoreError):
            keys = [key for key, _ in self.client.list(f"{LEASES}/{self.ref.digest}")]
            self.client.delete(keys)


class Waiting:
    """One who wants a lease, and what they have seen of who has it."""

    def __init__(self, client: Client, ref: ArtifactRef, expires_s: float) -> None:
        self.client, self.ref, self.expires_s = client, ref, expires_s
        self._seen: tuple[int, str] | None = None
        self._since = self._began = time.monotonic()
        self._told = self._began - TELL_S

    def take(self) -> Lease | None:
        """The lease, if nobody has it, or its holder is gone."""
        epoch = _latest(self.client, self.ref)
        if epoch and not self._is_over(epoch):
            return None
        lease = Lease(self.client, self.ref, epoch + 1, self.expires_s)
        if not self.client.create(_key(self.ref, lease.epoch), lease.content()):
            return None  # somebody else was quicker
        if epoch:
            logger.info("%s: taken over, as epoch %d", self.ref.short, lease.epoch)
        return lease.start()

    def _is_over(self, epoch: int) -> bool:
        found = self.client.get(_key(self.ref, epoch))
        if found is None:
            return False  # just ended: look again
        content, e_tag = found
        said = _said(content)
        if said.get("released") is True:
            return True
        now = time.monotonic()
        if self._seen != (epoch, e_tag):
            self._seen, self._since = (epoch, e_tag), now
        if now - self._told >= TELL_S:
            self._told = now
            host = shown(said.get("host", "?"), 80)
            logger.info("waiting for %s, which host %s is computing", self.ref.short, host)
        return now - self._since >= self.expires_s

    def wait(self) -> None:
        """A moment before the next look."""
        time.sleep(min(LONGEST_POLL_S, self.expires_s / 10))


def _said(content: bytes) -> dict[str, Any]:
    try:
        said = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}
