"""What this project wants of Prefect and OpenMP, unless the user says otherwise."""

from __future__ import annotations

import os

ENVIRONMENT_DEFAULTS = {
    # No call to any outside host. The first is for the client; the others are the server's.
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_SERVER_UI_V2_ENABLED": "false",
    # A small machine needs longer than Prefect's 20 s to start the embedded API.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    # A run that sends none any more is dead; see infra/server/setup.py.
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "sims_core",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    # How long a waiting OpenMP thread spins before it sleeps. The default makes work beside other
    # work on few cores slower, at times 20 times; see tests/benchmarks/bench_openmp_wait.py.
    "GOMP_SPINCOUNT": "2000",
}
"""Settings of every process: `sims`, server, worker. prefect.toml says the same to `prefect`."""

CONSOLE_DEFAULTS = {
    # The run shows its own progress; Prefect's log is in its UI.
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
}
"""Settings of `sims` alone: a worker shows the log of its runs."""


def apply_environment_defaults(quiet: bool = True) -> None:
    """Sets what this project wants of Prefect and OpenMP unless the user said otherwise.

    Must run before prefect and torch are imported, since they read the environment then.

    Args:
        quiet: Whether Prefect's own log stays off the terminal.
    """
    wanted = {**ENVIRONMENT_DEFAULTS, **CONSOLE_DEFAULTS} if quiet else ENVIRONMENT_DEFAULTS
    for name, value in wanted.items():
        os.environ.setdefault(name, value)
