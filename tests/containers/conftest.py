"""An engine for containers, and the images to begin with.

The engine is this machine's own, or, as root with Debian's docker.io, docker-compose and
debootstrap, one on a socket and in a folder of its own, which ends with the tests. Without either
the tests say why they skip. Images that cannot be pulled are made from Debian's packages.
"""

from __future__ import annotations

import ast
import contextlib
import os
import re
import secrets
import shlex
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STAND_INS = Path(__file__).with_name("stand-ins")
FOLDER = Path("/var/tmp")  # noqa: S108 - the folder in it has a random name
"""Where the engine's images lie: outside the checkout, and no file system in memory."""
NEEDED_GB = 30
BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
"""Debian's place for the certificates that are trusted."""


def say(text: str) -> None:
    """Prints a line with the time; `make test-containers` shows it at once."""
    print(time.strftime("%H:%M:%S"), text, flush=True)


def run(*command: str, seconds: float = 600, **environment: str) -> str:
    """Standard output of a command that must succeed within these seconds."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, f"{shlex.join(command)}: {(done.stdout + done.stderr)[-4000:]}"
    return done.stdout.strip()


def answers(*command: str, **environment: str) -> bool:
    """Whether a command is there and succeeds."""
    with contextlib.suppress(OSError, AssertionError, subprocess.TimeoutExpired):
        run(*command, seconds=180, **environment)
        return True
    return False


@contextlib.contextmanager
def timed(name: str) -> Iterator[None]:
    """Says how long what is done within took."""
    began = time.monotonic()
    yield
    say(f"{name}: {time.monotonic() - began:.0f} s")


@dataclass(frozen=True)
class Engine:
    """A daemon that answers, and its two commands."""

    client: str
    compose: tuple[str, ...]
    address: dict[str, str]
    """DOCKER_HOST, unless it is this machine's own."""

    step = staticmethod(timed)
    say = staticmethod(say)

    def docker(self, *arguments: str, seconds: float = 600) -> str:
        return run(self.client, *arguments, seconds=seconds, **self.address)

    def docker_compose(self, *arguments: str, seconds: float = 600) -> str:
        return run(*self.compose, *arguments, seconds=seconds, **self.address)

    def answers(self, *arguments: str) -> bool:
        return answers(self.client, *arguments, **self.address)


# --- the engine -----------------------------------------------------------------------------------


def _client() -> str | None:
    """The docker command; other programs go by that name too."""
    for name in (shutil.which("docker"), "/usr/bin/docker"):
        if name and answers(name, "--version") and "Docker version" in run(name, "--version"):
            return name
    return None


def _compose(client: str) -> tuple[str, ...] | None:
    for command in ((client, "compose"), ("docker-compose",)):
        if answers(*command, "version"):
            return command
    return None


def _free_gb(folder: Path) -> float:
    return shutil.disk_usage(folder).free / 1e9


def _skip_if_full(folder: Path) -> None:
    if (free := _free_gb(folder)) < NEEDED_GB:
        pytest.skip(f"{folder} has {free:.0f} GB free, the images need {NEEDED_GB}")


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    client = _client()
    if client is None or (compose := _compose(client)) is None:
        pytest.skip("no engine: docker or docker-compose is not installed")
    if answers(client, "info"):
        folder = Path(run(client, "info", "--format", "{{.DockerRootDir}}"))
        _skip_if_full(folder if folder.exists() else Path("/"))
        yield Engine(client, compose, {})
        return
    missing = [name for name in ("dockerd", "debootstrap") if not _system_program(name)]
    if os.geteuid() != 0 or missing:
        without = f"{', '.join(missing)} not installed" if missing else "only root may start one"
        pytest.skip(f"no engine answers and {without} (apt-get install docker.io debootstrap)")
    _skip_if_full(FOLDER)
    folder = Path(tempfile.mkdtemp(prefix="sims-containers-", dir=FOLDER))
    with _folder_that_goes(folder), _network_as_before(), _daemon(client, folder) as address:
        yield Engine(client, compose, {"DOCKER_HOST": address})


def _system_program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


@contextlib.contextmanager
def _daemon(client: str, folder: Path) -> Iterator[str]:
    """A dockerd that ends by its process id, at the latest when we do; yields its address."""
    address = f"unix://{folder}/docker.sock"
    command = [
        # Killed ourselves we could not end it.
        *("setpriv", "--pdeathsig", "TERM", str(_system_program("dockerd"))),
        *("--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec"),
        *("--host", address, "--pidfile", f"{folder}/pid"),
    ]
    with (folder / "log").open("wb") as file:
        daemon = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)
    try:
        deadline = time.monotonic() + 60
        while not answers(client, "info", DOCKER_HOST=address):
            if daemon.poll() is not None or time.monotonic() > deadline:
                pytest.skip(f"no engine: {(folder / 'log').read_text()[-600:]}")
            time.sleep(0.5)
        yield address
    finally:
        daemon.terminate()
        try:
            daemon.wait(90)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()


@contextlib.contextmanager
def _folder_that_goes(folder: Path) -> Iterator[None]:
    """Removes it at the end, with what is mounted in it."""
    try:
        yield
    finally:
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mount in reversed(mounts):
            if Path(mount).is_relative_to(folder):
                answers("umount", "--lazy", mount)
        shutil.rmtree(folder)


NO_RULES = """*filter
:INPUT ACCEPT
:FORWARD ACCEPT
:OUTPUT ACCEPT
COMMIT
*nat
:PREROUTING ACCEPT
:INPUT ACCEPT
:OUTPUT ACCEPT
:POSTROUTING ACCEPT
COMMIT
"""


@contextlib.contextmanager
def _network_as_before() -> Iterator[None]:
    """Takes back bridges, firewall rules and forwarding, which a dockerd leaves behind."""
    forwarding, interfaces = Path("/proc/sys/net/ipv4/ip_forward"), Path("/sys/class/net")
    was, had = forwarding.read_text(), {path.name for path in interfaces.iterdir()}
    save = _system_program("iptables-save")
    if save is None or not answers(save):
        pytest.skip("no engine: the firewall's rules cannot be read (iptables)")
    rules = run(save)
    try:
        yield
    finally:
        for name in {path.name for path in interfaces.iterdir()} - had:
            if name.startswith(("docker", "br-")):
                answers("ip", "link", "delete", name)
        subprocess.run(
            [str(_system_program("iptables-restore"))],
            input=f"{NO_RULES}{rules}\n",
            text=True,
            check=False,
        )
        forwarding.write_text(was)


# --- the images to begin with ---------------------------------------------------------------------


@pytest.fixture(scope="session")
def base_images(engine: Engine) -> Iterator[list[str]]:
    """The images that Dockerfile and compose file begin with: there, pulled, or stand-ins."""
    compose, dockerfile = ROOT / "docker-compose.yml", ROOT / "infra/images/Dockerfile"
    names = re.findall(r"^FROM (\S+)", dockerfile.read_text(), re.MULTILINE)
    names += re.findall(r"image: ((?:postgres|redis):\S+)", compose.read_text())
    assert len(names) == 3
    missing = [
        name
        for name in names
        if not engine.answers("image", "inspect", name) and not engine.answers("pull", name)
    ]
    made = _make_stand_ins(engine, missing) if missing else []
    yield names
    if not engine.address:  # they bear others' names on an engine that stays
        for name in made:
            engine.docker("rmi", name)


def _make_stand_ins(engine: Engine, names: list[str]) -> list[str]:
    if os.geteuid() != 0 or not (debootstrap := _system_program("debootstrap")):
        pytest.skip(f"cannot pull {names}, and without root and debootstrap cannot make them")
    folder = Path(tempfile.mkdtemp(prefix="sims-containers-debian-", dir=FOLDER))
    tag = f"sims-stand-in-{secrets.token_hex(4)}"
    with timed("stand-in of Debian, by debootstrap"), _folder_that_goes(folder):
        options = ["--variant=minbase", "--include=ca-certificates"]
        run(debootstrap, *options, "bookworm", str(folder / "root"), *_mirror())
        _package_indexes(folder / "root")
        run("tar", "-C", str(folder / "root"), "-cf", str(folder / "root.tar"), ".")
        engine.docker("import", str(folder / "root.tar"), tag)
    for name in names:
        with timed(f"stand-in of {name}"):
            engine.docker(
                *("build", "--build-arg", f"BASE={tag}", "--target", name.split(":")[0]),
                *("--tag", name, str(STAND_INS)),
            )
    if not engine.answers("run", "--rm", "--entrypoint", "true", names[0]):
        pytest.skip("the engine starts, but runs no container")
    return [*names, tag]


def _mirror() -> list[str]:
    """This machine's mirror of Debian, if it says one."""
    options = ["--format", "$(ORIGIN) $(SITE)", "Created-By: Packages"]
    found = run("apt-get", "indextargets", *options).splitlines()
    return [line.split()[1] for line in found if line.startswith("Debian ")][:1]


def _package_indexes(root: Path) -> None:
    """Lets pip and apt in this tree reach their indexes as they do on this machine."""
    known = _pip_settings()
    bundle = known.pop("cert", None) or ssl.get_default_verify_paths().cafile
    if bundle and Path(bundle).exists():
        shutil.copyfile(bundle, root / BUNDLE.removeprefix("/"))
    proxies = urllib.request.getproxies()
    if proxy := proxies.get("https"):
        known.setdefault("proxy", proxy)
    lines = [f"{key} = {value}" for key, value in {**known, "cert": BUNDLE}.items()]
    (root / "etc/pip.conf").write_text("\n".join(["[global]", *lines, ""]))
    settings = run("apt-config", "dump").splitlines()
    ours = [line for line in settings if re.match(r"Acquire::https?::Proxy", line)]
    ours += [f'Acquire::{kind}::Proxy "{proxies[kind]}";' for kind in proxies if "http" in kind]
    (root / "etc/apt/apt.conf.d/90host").write_text("\n".join([*ours, ""]))
    for archive in (root / "var/cache/apt/archives").glob("*.deb"):
        archive.unlink()


def _pip_settings() -> dict[str, str]:
    """pip's settings of the package index on this machine, without what lies on its own disk."""
    found = {}
    for line in run(sys.executable, "-m", "pip", "config", "list").splitlines():
        name, _, text = line.partition("=")
        key, value = name.rpartition(".")[2].replace("default-", ""), ast.literal_eval(text)
        if key in {"index-url", "extra-index-url", "trusted-host", "proxy"}:
            value = " ".join(word for word in value.split() if not word.startswith(("file:", "/")))
        elif key not in {"cert", "timeout", "retries"}:
            continue
        if value:
            found[key] = value  # the environment's come last
    return found
