"""`sims`: the same flows, presets and parameters as the Prefect deployments, from a shell.

Exit codes: 0, 1 for a failed run or a damaged store, 2 for bad input. With --json standard output
is one JSON object and nothing else; progress and messages go to standard error.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli.data import data_app
from infra.cli.evaluate import evaluate
from infra.cli.model import model_app
from infra.cli.shell import JsonOption, StoreOption
from infra.cli.shell import errors as _errors
from infra.cli.shell import use_store as _use_store
from infra.cli.stack import stack_app
from infra.environment import apply_environment_defaults

if TYPE_CHECKING:  # what a command needs is imported when it runs: `sims --help` needs none of it
    from sims_core.store.artifacts import ArtifactRef
    from sims_core.store.store import Store

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Self-consuming loops of diffusion models as cached, resumable runs.",
)
store_app = typer.Typer(no_args_is_help=True, help="Look into the artifact store.")
app.add_typer(store_app, name="store")
app.add_typer(data_app, name="data")
app.add_typer(model_app, name="model")
app.add_typer(stack_app, name="stack")
app.command()(evaluate)


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
        typer.Option("-p", "--param", metavar="KEY=VALUE", help="A parameter of the flow."),
    ] = None,
    store: StoreOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be computed; compute nothing.")
    ] = False,
    direct: Annotated[
        bool, typer.Option("--direct", help="Without Prefect: same artifacts, same report, no UI.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Run a preset in this process; what the store already holds is not computed again."""
    from infra.cli.runs import check_run, dry_run_lines, execute, execute_directly
    from sims_core.reports.summary import arm_line

    with _errors():
        _use_store(store)
        apply_environment_defaults()
        checked = check_run(preset, parameter or [])
        if dry_run:
            print(dry_run_lines(checked, as_json))
            return
        summary = execute_directly(checked) if direct else execute(checked)
        if as_json:
            print(summary.model_dump_json(exclude_defaults=True))
            return
        if summary.answer:
            print(summary.answer)
        for arm in summary.arms:
            print(arm_line(arm, summary.figure))
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
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Prepare a Prefect server and the store for deployments; may be run again at any time."""
    with _errors():
        _use_store(store)
        apply_environment_defaults()
        from infra.server.setup import set_up

        done = set_up(gpus)
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
        print(
            f"wrote {FILE.absolute()}; `prefect --no-prompt deploy --all` brings it to the server"
        )


@store_app.command("ls")
def store_ls(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """List the artifacts: kind, digest, size, stage; and what decoded images take."""
    from sims_core.store.cache import DECODED_FOLDER, decoded_folders, disk_bytes

    with _errors():
        opened = _existing(store)
        rows = [_describe(opened, ref) for ref in opened.artifacts()]
        sets = decoded_folders(opened.root)
        decoded_bytes = sum(map(disk_bytes, sets))
        if as_json:
            decoded = {"sets": len(sets), "bytes": decoded_bytes}
            print(json.dumps({"store": str(opened.root), "artifacts": rows, "decoded": decoded}))
            return
        for row in rows:
            print(
                f"{row['kind']}/{str(row['digest'])[:12]}  {row['bytes']:>12} bytes  {row['stage']}"
            )
        print(f"{len(rows)} artifacts in {opened.root}")
        if sets:
            print(
                f"{len(sets)} decoded training sets, {decoded_bytes} bytes of disk, in "
                f"{opened.root}/{DECODED_FOLDER}, which may be deleted at any time"
            )


def _existing(store: Path | None) -> Store:
    """The store that is named, if it is there."""
    from sims_core.settings import Settings
    from sims_core.store.store import Store

    _use_store(store)
    return Store.open(Settings.read().store, create=False)


def _describe(store: Store, ref: ArtifactRef) -> dict[str, str | int]:
    from sims_core.common.errors import DamagedArtifact

    try:
        manifest = store.manifest(ref)
    except DamagedArtifact:
        return {"kind": ref.kind, "digest": ref.digest, "stage": "damaged", "bytes": 0}
    size = sum(entry.size for entry in manifest.files.values())
    stage = manifest.request.stage
    return {"kind": ref.kind, "digest": ref.digest, "stage": stage, "bytes": size}


@store_app.command("verify")
def store_verify(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Check every file against its manifest; exit 1 and one line for each that is damaged."""
    from sims_core.data.decoded import decoded_sets

    with _errors():
        opened = _existing(store)
        refs = opened.artifacts()
        damaged = [line for ref in refs for line in opened.damage(ref)]
        damaged += [line for each in decoded_sets(opened) for line in each.damage()]
        if as_json:
            print(
                json.dumps({"store": str(opened.root), "artifacts": len(refs), "damaged": damaged})
            )
        else:
            for line in damaged:
                print(line)
            if not damaged:
                print(f"{len(refs)} artifacts in {opened.root}: all whole")
        if damaged:
            raise typer.Exit(1)


def main() -> None:
    """Entry point of the `sims` command."""
    app()
