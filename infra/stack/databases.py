"""PostgreSQL and Redis from Debian's packages, as the native stack runs them."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import psutil
import redis

from sims_core.common.errors import BadInput, SimsError

LOOPBACK = "127.0.0.1"
PREFECT = "prefect"
"""Name of Prefect's database and of its owner."""
ASK_S = 5.0


@dataclass(frozen=True)
class Programs:
    """Where the servers are installed."""

    postgres: Path
    redis: Path


def find_programs() -> Programs:
    """The installed servers; of several versions of PostgreSQL the one on the path, else the last.

    Raises:
        BadInput: one is not installed; says how to install it.
    """
    if not (redis_server := shutil.which("redis-server")):
        raise BadInput("Redis is not installed: apt-get install redis-server")
    if on_path := shutil.which("postgres"):
        return Programs(Path(on_path).resolve(), Path(redis_server))
    # Debian keeps each version in a folder of its own, off the path.
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3])
    )
    if not found:
        raise BadInput("PostgreSQL is not installed: apt-get install postgresql")
    return Programs(found[-1], Path(redis_server))


def postgres_user() -> str | None:
    """PostgreSQL refuses to run as root: then it runs as its package's user, else as the caller."""
    return "postgres" if os.geteuid() == 0 else None


def write_private(path: Path, text: str) -> None:
    """Replaces the file whole; nobody else can read it, at no moment."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        file.write(text)
    new.rename(path)


def make_postgres_folder(program: Path, data: Path, password: str) -> None:
    """`initdb`, if it was not yet done; what is not finished has another name.

    Raises:
        BadInput: PostgreSQL's user cannot get there, or the folder is of another version.
        SimsError: initdb failed.
    """
    if data.exists():
        _check_version(program, data)
        return
    user, new = postgres_user(), data.with_name("postgres.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(mode=0o700)
    password_file = new.with_name("postgres.password")
    write_private(password_file, password)
    if user:
        account = pwd.getpwnam(user)
        for path in (new, password_file):
            os.chown(path, account.pw_uid, account.pw_gid)
    access = ["--username", PREFECT, "--pwfile", str(password_file), "--auth", "scram-sha-256"]
    content = ["--encoding", "UTF8", "--locale", "C"]
    try:
        done = subprocess.run(  # noqa: S603 - our own command
            [str(program.with_name("initdb")), "--pgdata", str(new), *access, *content],
            cwd="/",
            user=user,
            group=user,
            extra_groups=None if user is None else [],
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        password_file.unlink()
    if done.returncode == 0:
        new.rename(data)
        return
    if "Permission denied" in done.stderr and user:
        raise BadInput(
            f"the user {user} cannot enter {data.parent}: choose another folder with --state"
        )
    raise SimsError(f"initdb failed: {(done.stderr.strip() or 'it said nothing').splitlines()[-1]}")


def _check_version(program: Path, data: Path) -> None:
    made_by = (data / "PG_VERSION").read_text().strip()
    said = subprocess.run(  # noqa: S603 - our own command
        [str(program), "--version"], capture_output=True, text=True, check=True
    ).stdout
    if f" {made_by}." not in said:
        raise BadInput(
            f"{data} was made by PostgreSQL {made_by}, installed is {said.strip()}: see "
            "docs/deploy.md, Upgrades"
        )


def postgres_command(program: Path, data: Path, port: int) -> list[str]:
    """What runs the database on this port, with no socket file."""
    options = {"listen_addresses": LOOPBACK, "port": port, "unix_socket_directories": ""}
    settings = [word for key, value in options.items() for word in ("-c", f"{key}={value}")]
    return [str(program), "-D", str(data), *settings]


def wait_for_postgres_to_go(data: Path, seconds: float) -> None:
    """A server that was killed leaves children for a moment, and none may start beside them."""
    left = [p for p in psutil.process_iter(["cwd"]) if p.info["cwd"] == str(data)]
    psutil.wait_procs(left, timeout=seconds)


def ask_postgres(port: int, password: str) -> str | None:
    """None if it answers, else one line. Makes Prefect's database if it is not there.

    Raises:
        BadInput: it refuses the password.
    """

    async def ask() -> None:
        connection = await asyncpg.connect(
            host=LOOPBACK,
            port=port,
            user=PREFECT,
            password=password,
            database="postgres",
            timeout=ASK_S,
        )
        try:
            known = "SELECT 1 FROM pg_database WHERE datname = $1"
            if not await connection.fetchval(known, PREFECT):
                await connection.execute(f"CREATE DATABASE {PREFECT}")
        finally:
            await connection.close()

    try:
        asyncio.run(ask())
    except asyncpg.InvalidPasswordError:
        raise BadInput("PostgreSQL refuses the password") from None
    except (OSError, asyncpg.PostgresError) as error:
        return f"no answer from PostgreSQL: {error}"
    return None


def ask_redis(port: int, password: str) -> str | None:
    """None if it answers, else one line.

    Raises:
        BadInput: it refuses the password.
    """
    client = redis.Redis(host=LOOPBACK, port=port, password=password, socket_timeout=ASK_S)
    try:
        client.ping()
    except redis.AuthenticationError:
        raise BadInput("Redis refuses the password") from None
    except redis.RedisError as error:
        return f"no answer from Redis: {error}"
    finally:
        client.close()
    return None
