"""`sims store`: what lies in the artifact store, and whether it is as it was put there."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import typer

from infra.cli.shell import JsonOption, StoreOption, errors, existing_store, print_list
from sims_core.common.shown import shown

if TYPE_CHECKING:  # what a command needs is imported when it runs
    from sims_core.store.artifacts import ArtifactRef
    from sims_core.store.store import Store

store_app = typer.Typer(no_args_is_help=True, help="Look into the artifact store.")


@store_app.command("ls")
def store_ls(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """List the artifacts: kind, digest, size, stage; and what decoded images take."""
    with errors():
        from sims_core.store.cache import DECODED_FOLDER, decoded_folders, disk_bytes

        opened = existing_store(store)
        rows = [_describe(opened, ref) for ref in opened.artifacts()]
        sets = decoded_folders(opened.root)
        decoded = {"sets": len(sets), "bytes": sum(map(disk_bytes, sets))}
        print_list(opened, "artifacts", rows, _text, as_json, decoded=decoded)
        if sets and not as_json:
            print(
                f"{len(sets)} decoded training sets, {decoded['bytes']} bytes of disk, in "
                f"{opened.root}/{DECODED_FOLDER}, which may be deleted at any time"
            )


def _text(row: dict[str, Any]) -> str:
    return f"{row['kind']}/{row['digest'][:12]}  {row['bytes']:>12} bytes  {row['stage']}"


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
        from sims_core.data.decoded import decoded_sets
        from sims_core.reports.verify import problems

        opened = existing_store(store)
        artifacts, damaged = len(opened.artifacts()), problems(opened)
        damaged += [line for each in decoded_sets(opened) for line in each.damage()]
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
