"""Hosts with a store each and one bucket, and a stage that writes files and needs no torch."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("obstore", reason="the extra sims-loop[remote] is not installed")

from obstore.store import MemoryStore

from sims_core.common.frozen import Frozen
from sims_core.engine.execution import Execution
from sims_core.engine.run import run_stage
from sims_core.engine.stage import Progress, Stage, no_progress
from sims_core.store.artifacts import ArtifactRef, StageRequest
from sims_core.store.remote.bucket import Bucket
from sims_core.store.remote.client import BucketError, Client, connect
from sims_core.store.store import Store

STAGE = """
    from sims_core.common.kept import is_kept, note

    def write(context):
        made = 0
        for number in range(context.config.parts):
            path = context.state / f"part-{number}"
            if not is_kept(path):
                path.write_bytes(bytes([number]) * context.config.size)
                note(path)
                made += 1
                context.progress(number + 1, context.config.parts, "part")
        for number in range(context.config.parts):
            target = context.directory / "parts" / f"{number}"
            target.parent.mkdir(exist_ok=True)
            target.write_bytes((context.state / f"part-{number}").read_bytes())
        (context.directory / "by").write_text(f"{context.execution.sampling_batch_size}")
        return {"made": made}
"""


class WriteConfig(Frozen):
    name: str = "one"
    parts: int = 3
    size: int = 1000


WRITE = Stage("write", 1, "images", WriteConfig, "stage_of_hosts:write", without_torch=True)


class Cut(Client):
    """A bucket that is out of reach while `is_cut`, or after so many writes of files."""

    is_cut = False
    puts_left = 10**9

    def _explained(self, did: str, key: str) -> Any:
        if did == "write" and key.startswith("blobs/"):
            self.puts_left -= 1
        if self.is_cut or self.puts_left < 0:
            raise BucketError(f"cannot {did} {key}")
        return super()._explained(did, key)


@dataclass
class Host:
    """A store with the bucket behind it. Hosts of other numbers write other bytes."""

    store: Store
    client: Cut
    number: int
    settings: dict[str, Any]
    computed: list[str] = field(default_factory=list)

    @property
    def bucket(self) -> Bucket:
        assert isinstance(self.store.behind, Bucket)
        return self.store.behind

    def run(
        self, request: StageRequest, progress: Progress = no_progress, **how: Any
    ) -> ArtifactRef:
        def tell(done: int, total: int, unit: str, **figures: float) -> None:
            self.computed.append(f"{request.config['name']} {done}")
            progress(done, total, unit, **figures)

        execution = Execution(threads=1, sampling_batch_size=self.number)
        return run_stage(self.store, WRITE, request, execution, progress=tell, **how)

    def by(self, ref: ArtifactRef) -> str:
        """Which host made the bytes that this one has."""
        return (self.store.open_artifact(ref) / "by").read_text()

    def reopened(self, **settings: Any) -> Host:
        """The same host in a new process."""
        store = Store.open(self.store.root)
        again = Host(store, self.client, self.number, {**self.settings, **settings})
        store.behind = Bucket(self.client, store, **again.settings)
        return again


@pytest.fixture(scope="session")
def write_request() -> Callable[..., StageRequest]:
    return lambda name="one", *, of=None, **sizes: WRITE.request(
        WriteConfig(name=name, **sizes), **({} if of is None else {"of": of})
    )


@pytest.fixture(scope="session")
def write_stage() -> Stage[WriteConfig]:
    return WRITE


@pytest.fixture(autouse=True)
def stage_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the stage's module lies."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "stage_of_hosts.py").write_text(textwrap.dedent(STAGE))
    monkeypatch.syspath_prepend(str(folder))
    return folder


@pytest.fixture(params=["memory", "folder"])
def hosts(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., list[Host]]:
    """Makes so many hosts with one bucket between them."""

    def make(count: int, **settings: Any) -> list[Host]:
        settings = {"lease_s": 1.0, "upload_s": 0.05, **settings}
        if request.param == "memory":
            shared, url = MemoryStore(), "memory"
        else:
            url = f"file://{tmp_path}/bucket"
            shared = connect(url)._store
        made = []
        for number in range(1, count + 1):
            store = Store.open(tmp_path / f"host-{number}")
            client = Cut(shared, url)
            store.behind = Bucket(client, store, **settings)
            made.append(Host(store, client, number, settings))
        return made

    return make
