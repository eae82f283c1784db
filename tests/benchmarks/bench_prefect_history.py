"""What do thousands of flow runs cost Prefect's database, and what does pruning them bring?

    python tests/benchmarks/bench_prefect_history.py [--runs 1000]

Fills a new SQLite database with finished runs of 100 days, each of 20 task runs, 60 lines of log
and 4 artifacts of 50 kB; asks what the page of runs asks; prunes by Prefect's own service what is
older than 30 days (as docs/deploy.md says); asks again; lets SQLite give the room back. Prints one
JSON line; exits 1 if runs of the last 30 days are gone or older ones are left.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

DAYS, KEPT_DAYS = 100, 30
TASKS, LINES, ARTIFACTS, ARTIFACT_BYTES = 20, 60, 4, 50_000


def settle(home: str) -> None:
    """A database of its own, and the settings of docs/deploy.md."""
    os.environ.update(
        PREFECT_HOME=home,
        PREFECT_API_DATABASE_CONNECTION_URL=f"sqlite+aiosqlite:///{home}/prefect.db",
        PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED="events,flow_runs",
        PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD=str(KEPT_DAYS * 86_400),
    )


def rows_of(db: Any, flow: uuid.UUID, number: int, runs: int) -> list[tuple[Any, dict[str, Any]]]:
    """A run and what belongs to it, as rows of Prefect's tables."""
    run = uuid.uuid4()
    ended = datetime.now(UTC) - timedelta(days=DAYS * (number + 0.5) / runs)
    done = {"state_type": "COMPLETED", "state_name": "Completed", "end_time": ended}
    named = {"flow_id": flow, "name": f"run-{number}", "parameters": {}}
    rows = [(db.FlowRun, {"id": run, **named, **done})]
    for task in range(TASKS):
        keys = {"task_key": "stage", "dynamic_key": str(task), "name": f"stage-{task}"}
        rows.append((db.TaskRun, {"id": uuid.uuid4(), "flow_run_id": run, **keys, **done}))
    for line in range(LINES):
        said = {"name": "sims_core", "level": 20, "message": f"stage {line}: computed"}
        rows.append((db.Log, {"id": uuid.uuid4(), "flow_run_id": run, "timestamp": ended, **said}))
    for each in range(ARTIFACTS):
        data = {"type": "markdown", "data": "x" * ARTIFACT_BYTES, "key": f"run-{number}-{each}"}
        rows.append((db.Artifact, {"id": uuid.uuid4(), "flow_run_id": run, **data}))
    return rows


async def fill(db: Any, runs: int) -> None:
    import sqlalchemy as sa
    from prefect.server import models, schemas

    async with db.session_context(begin_transaction=True) as session:
        flow = await models.flows.create_flow(session, schemas.core.Flow(name="sims-loop"))
        flow_id = flow.id
    for first in range(0, runs, 100):
        tables: dict[Any, list[dict[str, Any]]] = {}
        for number in range(first, min(first + 100, runs)):
            for table, row in rows_of(db, flow_id, number, runs):
                tables.setdefault(table, []).append(row)
        async with db.session_context(begin_transaction=True) as session:
            for table, rows in tables.items():
                await session.execute(sa.insert(table), rows)


async def ask(db: Any) -> float:
    """Seconds of what the page of runs asks: the latest 100 of them, and how many there are."""
    from prefect.server import models, schemas

    started = time.perf_counter()
    async with db.session_context() as session:
        latest = schemas.sorting.FlowRunSort.END_TIME_DESC
        await models.flow_runs.read_flow_runs(session, limit=100, sort=latest)
        await models.flow_runs.count_flow_runs(session)
    return time.perf_counter() - started


async def measure(home: Path, runs: int) -> dict[str, Any]:
    import sqlalchemy as sa
    from prefect.server.database import provide_database_interface
    from prefect.server.services.db_vacuum import vacuum_old_flow_runs

    db = provide_database_interface()
    await db.create_db()
    await fill(db, runs)
    await ask(db)
    found = {"runs": runs, "asked_s": await ask(db), "bytes": size(home)}
    started = time.perf_counter()
    await vacuum_old_flow_runs(db=db)
    found |= {"pruned_s": time.perf_counter() - started, "asked_again_s": await ask(db)}
    async with db.session_context() as session:
        left = (await session.execute(sa.select(db.FlowRun.end_time))).scalars().all()
        logs = (await session.execute(sa.select(sa.func.count()).select_from(db.Log))).scalar()
    engine = await db.engine()
    async with engine.connect() as connection:
        raw = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await raw.execute(sa.text("VACUUM"))
        await raw.execute(sa.text("PRAGMA wal_checkpoint(TRUNCATE)"))
    oldest = datetime.now(UTC) - timedelta(days=KEPT_DAYS)
    found |= {"left": len(left), "logs": logs, "bytes_after": size(home)}
    return {**found, "right": logs == LINES * len(left) and all(end > oldest for end in left)}


def size(home: Path) -> int:
    return sum(path.stat().st_size for path in home.glob("prefect.db*"))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=1000)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as home:
        settle(home)
        found = asyncio.run(measure(Path(home), runs))
    print(json.dumps(found))
    wanted = round(runs * KEPT_DAYS / DAYS)
    return 0 if found["right"] and abs(found["left"] - wanted) <= 1 else 1


if __name__ == "__main__":
    sys.exit(main())
