"""`sims stack`: the services of docker-compose.yml on this machine, without Docker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from infra.cli.shell import JsonOption, StoreOption, errors, use_store

stack_app = typer.Typer(
    no_args_is_help=True,
    help="PostgreSQL, Redis, Prefect server, services and worker on this machine, without Docker.",
)
StateOption = Annotated[
    Path, typer.Option("--state", help="Folder of its databases, logs and passwords.")
]


@stack_app.command("start")
def stack_start(
    state: StateOption = Path(".stack"),
    port: Annotated[
        int | None,
        typer.Option("--port", min=1, max=65535, help="Of UI and API: the last one, else 4200."),
    ] = None,
    store: StoreOption = None,
) -> None:
    """Start what does not run yet, set up work pool and deployments, wait until all is well."""
    from infra.stack.stack import Stack
    from sims_core.settings import Settings

    with errors():
        use_store(store)
        stack = Stack(state)
        stack.start(port, Settings.read().store)
        print(f"Prefect UI: {stack.url}")
        print(
            f"its password, and what a shell needs (. {stack.environment_file}), are in that file"
        )


@stack_app.command("stop")
def stack_stop(state: StateOption = Path(".stack")) -> None:
    """Stop everything. A run at work becomes Crashed; retried, it goes on where it was."""
    from infra.stack.stack import Stack

    with errors():
        stack = Stack(state)
        print("stopped" if stack.stop() else f"nothing runs in {stack.folder}")


@stack_app.command("status")
def stack_status(state: StateOption = Path(".stack"), as_json: JsonOption = False) -> None:
    """Say how each component is; exit code 1 unless all are well."""
    from infra.stack.stack import Stack

    with errors():
        components = Stack(state).status()
        if as_json:
            print(json.dumps([component.model_dump() for component in components]))
        else:
            for component in components:
                health = component.problem or f"well, process {component.pid}"
                print(f"{component.name:<10} {health}")
        if any(component.problem for component in components):
            raise typer.Exit(1)
