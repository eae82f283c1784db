"""`sims store`: what lies in the artifact store, and whether it is as it was put there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from infra.cli.shell import JsonOption, StoreOption, errors, use_store
from sims_core.common.shown import shown

if TYPE_CHECKING:  # what a command needs is imported when it runs
    from sims_core.store.artifacts import ArtifactRef
    from sims_core.store.store import Store

store_app = typer.Typer(no_args_is_help=True, help="Look into the artifact store.")


@store_app.command("ls")
def store_ls(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """List the artifacts: kind, digest, size, stage."""
    with errors():
        opened = _existing(store)
        rows = [_describe(opened, ref) for ref in opened.artifacts()]
        if as_json:
            print(json.dumps({"store": str(opened.root), "artifacts": rows}))
            return
        for row in rows:
            print(
                f"{row['kind']}/{str(row['digest'])[:12]}  {row['bytes']:>12} bytes  {row['stage']}"
            )
        print(f"{len(rows)} artifacts in {opened.root}")


def _existing(store: Path | None) -> Store:
    """The store that is named, if it is there."""
    from sims_core.settings import Settings
    from sims_core.store.store import Store

    use_store(store)
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
    """Check every file of artifacts, names, records and runs; exit 1 and one line for each that is
    damaged or missing."""
    with errors():
        from sims_core.reports.verify import problems

        opened = _existing(store)
        artifacts, damaged = len(opened.artifacts()), problems(opened)
        if as_json:
            print(
                json.dumps({"store": str(opened.root), "artifacts": artifacts, "damaged": damaged})
            )
        else:
            for line in damaged:
                print(shown(line))
            if not damaged:
                print(f"{artifacts} artifacts in {opened.root}: all whole")
        if damaged:
            raise typer.Exit(1)
