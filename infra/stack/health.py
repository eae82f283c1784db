"""`python -m infra.stack.health server|services|worker`: exit code 0 if it is well.

Else it says why in one line.

Reads the environment that the service itself has. Compose and `sims stack` ask every few seconds,
so nothing heavy is imported.
"""

from __future__ import annotations

import os
import sys
from urllib.error import URLError
from urllib.request import urlopen

TIMEOUT_S = 8
IDLE_S = 60.0
"""Services that have not asked their database for so long are stuck."""


def _get(url: str) -> str | None:
    try:
        with urlopen(url, timeout=TIMEOUT_S):  # noqa: S310 - http, from our own environment
            return None
    except (URLError, OSError) as error:
        return f"{url}: {error}"


def server() -> str | None:
    """Whether the API answers and reaches its database."""
    port = os.environ["PREFECT_SERVER_API_PORT"]
    return _get(f"http://127.0.0.1:{port}/api/ready")


def worker() -> str | None:
    """Whether the worker still asks for work."""
    port = os.environ["PREFECT_WORKER_WEBSERVER_PORT"]
    return _get(f"http://127.0.0.1:{port}/health")


def services() -> str | None:
    """Whether the background services work: the shortest of their loops asks every five seconds."""
    import asyncio

    return asyncio.run(_services())


async def _services() -> str | None:
    import asyncpg

    name = "PREFECT_SERVER_DATABASE"
    try:
        connection = await asyncpg.connect(
            host=os.environ[f"{name}_HOST"],
            port=int(os.environ[f"{name}_PORT"]),
            user=os.environ[f"{name}_USER"],
            database=os.environ[f"{name}_NAME"],
            password=os.environ[f"{name}_PASSWORD"],
            timeout=TIMEOUT_S,
        )
        idle = await connection.fetchval(
            "SELECT extract(epoch FROM now() - max(state_change))::float FROM pg_stat_activity "
            "WHERE application_name = $1",
            os.environ[f"{name}_SQLALCHEMY_CONNECT_ARGS_APPLICATION_NAME"],
        )
        await connection.close()
    except (OSError, asyncpg.PostgresError) as error:
        return f"PostgreSQL: {error}"
    if idle is None:
        return "no service has asked the database yet"
    return f"no service has asked the database for {idle:.0f} s" if idle > IDLE_S else None


CHECKS = {"server": server, "services": services, "worker": worker}


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or arguments[0] not in CHECKS:
        print(f"usage: python -m infra.stack.health {'|'.join(CHECKS)}", file=sys.stderr)
        return 2
    if problem := CHECKS[arguments[0]]():
        print(problem, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
