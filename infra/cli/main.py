"""`sims`: the same flows, presets and parameters as the Prefect deployments, from a shell.

Exit codes: 0, 1 for a failed run or a damaged store, 2 for bad input. With --json standard output
is one JSON object and nothing else; progress and messages go to standard error.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from infra.cli.data import data_app
from infra.cli.evaluate import evaluate
from infra.cli.model import model_app
from infra.cli.past_runs import runs_app
from infra.cli.shell import JsonOption, StoreOption
from infra.cli.shell import errors as _errors
from infra.cli.shell import use_store as _use_store
from infra.cli.stack import stack_app
from infra.cli.store import store_app
from infra.cli.workers import workers
from infra.environment import apply_environment_defaults
from sims_core.common.errors import BadInput

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(store_app, name="store")
app.add_typer(data_app, name="data")
app.add_typer(model_app, name="model")
app.add_typer(stack_app, name="stack")
app.add_typer(runs_app, name="runs")
app.command()(evaluate)
app.command()(workers)


def _print_version(wanted: bool) -> None:
    if wanted:
        from sims_core.engine.source import PACKAGE, code_commit, package_version

        commit = code_commit()
        print(f"{PACKAGE} {package_version()}" + (f" (commit {commit})" if commit else ""))
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print version and commit."
        ),
    ] = False,
) -> None:
    """Self-consuming loops of diffusion models as cached, resumable runs."""


@app.command()
def presets(as_json: JsonOption = False) -> None:
    """List the presets: <flow>/<preset>, also the names of the Prefect deployments."""
    from flows.presets import load_presets

    rows = [
        {
            "name": preset.full_name,
            "description": preset.description,
            "hardware": preset.hardware,
            "expected_time": preset.expected_time,
        }
        for preset in load_presets().values()
    ]
    if as_json:
        print(json.dumps(rows))
        return
    for row in rows:
        print(f"{row['name']}\n  {row['description']}\n  {row['hardware']}; {row['expected_time']}")


@app.command()
def run(
    preset: Annotated[str, typer.Argument(metavar="FLOW/PRESET", help="See `sims presets`.")],
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "-p",
            "--param",
            metavar="KEY=VALUE",
            help="A parameter, such as seeds=0,1,2 or training.kimg=50; a wrong name lists the "
            "valid ones.",
        ),
    ] = None,
    store: StoreOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be computed; compute nothing.")
    ] = False,
    stages: Annotated[
        bool, typer.Option("--stages", help="With --dry-run: a line for every stage.")
    ] = False,
    direct: Annotated[
        bool, typer.Option("--direct", help="Without Prefect: same artifacts, same report, no UI.")
    ] = False,
    recompute: Annotated[
        str | None,
        typer.Option(
            "--recompute",
            metavar="STAGE[,STAGE]",
            help="Compute these anew, and what was made of them if their bytes change.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run a preset in this process; what the store already holds is not computed again."""
    from infra.cli.runs import check_run, dry_run_of, execute, execute_directly
    from sims_core.reports.summary import result_lines

    with _errors():
        _use_store(store)
        if recompute is not None:
            os.environ["SIMS_RECOMPUTE"] = recompute
        apply_environment_defaults()
        if stages and not dry_run:
            raise BadInput("`stages` needs `dry_run`, whose list it makes longer")
        checked = check_run(preset, parameter or [], to_plan=dry_run)
        if dry_run:
            planned = dry_run_of(checked)
            print(planned.json() if as_json else "\n".join(planned.lines(stages)))
            return
        summary = execute_directly(checked) if direct else execute(checked)
        if as_json:
            print(summary.model_dump_json(exclude_defaults=True))
            return
        for line in result_lines(summary):
            print(line)
        counts = summary.stages
        print(
            f"stages: {counts.computed} computed in {counts.seconds:.0f} s, {counts.cached} cached"
        )
        print(f"report: {summary.report}")


@app.command()
def setup(
    gpus: Annotated[
        int | None,
        typer.Option("--gpus", min=1, help="How many stages may use the GPUs at once (1)."),
    ] = None,
    arms_pool: Annotated[
        Path | None,
        typer.Option(
            "--arms-pool",
            metavar="FILE",
            help="Arms run in containers, as this file of infra/pools/ says, not in processes.",
        ),
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Prepare a Prefect server and the store for deployments; may be run again at any time."""
    with _errors():
        _use_store(store)
        apply_environment_defaults()
        from infra.server.setup import set_up

        done = set_up(gpus, arms_pool)
        if as_json:
            print(json.dumps(done))
            return
        for name, text in done.items():
            print(f"{name}: {text}")


@app.command()
def deployments() -> None:
    """Write prefect.yaml anew: one deployment for every preset."""
    from infra.server.deployments import FILE, prefect_yaml
    from sims_core.common.files import write_atomically

    with _errors():
        write_atomically(FILE.absolute(), prefect_yaml())
        print(f"wrote {FILE.absolute()}; `prefect --no-prompt deploy --all` tells the server")


def main() -> None:
    """Entry point of the `sims` command."""
    app()
