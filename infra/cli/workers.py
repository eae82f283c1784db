"""`sims workers`: a worker for each GPU of this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from infra.cli.shell import StoreOption, errors, use_store
from infra.environment import apply_environment_defaults


def workers(
    count: Annotated[
        int | None,
        typer.Option("--count", min=1, help="How many: one a GPU; without a GPU it must be said."),
    ] = None,
    store: StoreOption = None,
) -> None:
    """Start workers that compute arms, one a GPU, and keep them until this command is ended."""
    with errors():
        use_store(store)
        apply_environment_defaults(quiet=False)
        from infra.server.workers import run_workers

        run_workers(count)
