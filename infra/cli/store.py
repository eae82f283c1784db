"""`sims store`: what lies in the artifact store, and whether it is as it was put there."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.cli.bucket import RemoteOption, du_remote, store_pull, store_push, verify_remote
from infra.cli.shell import JsonOption, StoreOption, errors, existing_store, print_list
from sims_core.common.shown import shown

if TYPE_CHECKING:  # what a command needs is imported when it runs
    from sims_core.store.artifacts import ArtifactRef
    from sims_core.store.store import Store

store_app = typer.Typer(no_args_is_help=True, help="Look into the artifact store.")
store_app.command("push")(store_push)
store_app.command("pull")(store_pull)


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
def store_verify(
    store: StoreOption = None, remote: RemoteOption = False, as_json: JsonOption = False
) -> None:
    """Check every file of artifacts, names, records and runs; exit 1 and one line for each that is
    damaged or missing."""
    with errors():
        if remote:
            verify_remote(as_json)
            return
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


@store_app.command("du")
def store_du(
    store: StoreOption = None, remote: RemoteOption = False, as_json: JsonOption = False
) -> None:
    """Say how much artifacts of each kind and stage hold, and each run: in all, and it alone."""
    with errors():
        if remote:
            du_remote(as_json)
            return
        from sims_core.reports.upkeep import by, decoded_of, look
        from sims_core.store.cache import decoded_folders, disk_bytes

        opened = existing_store(store)
        held = look(opened)
        groups = {what: by(held, what) for what in ("kind", "stage")}
        runs = {
            who: (held.bytes_of(needed), held.bytes_of(held.alone(who)))
            for who, needed in held.needed.items()
        }
        unneeded, sets = held.bytes_of(held.unneeded), decoded_folders(opened.root)
        kept = decoded_of(opened, set(held.manifests) - held.unneeded)
        decoded = {
            "sets": len(sets),
            "bytes": sum(map(disk_bytes, sets)),
            "unneeded": sum(disk_bytes(folder) for folder in sets if folder not in kept),
        }
        if as_json:
            print(json.dumps({**groups, "run": runs, "unneeded": unneeded, "decoded": decoded}))
            return
        for what, rows in groups.items():
            print(f"{what:<40}{'artifacts':>10}{'bytes':>16}")
            for name, (count, size) in rows.items():
                print(f"{name:<40}{count:>10}{size:>16}")
        print(f"{'run':<40}{'bytes':>10}{'it alone':>16}")
        for name, (size, alone) in runs.items():
            print(f"{shown(name):<40}{size:>10}{alone:>16}")
        print(
            f"needed by no run and no name: {unneeded} bytes (`sims store gc` removes what of them "
            "is a day old; with --older-than 0 all)"
        )
        print(
            f"{decoded['sets']} decoded training sets: {decoded['bytes']} bytes of disk, "
            f"{decoded['unneeded']} of artifacts that are not needed or not there"
        )


@store_app.command("gc")
def store_gc(
    older_than: Annotated[
        float, typer.Option("--older-than", metavar="DAYS", min=0, help="What is younger stays.")
    ] = 1.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go.")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove the artifacts that no run under runs/, no name and no running process needs, and
    training sets decoded from them."""
    with errors():
        from sims_core.reports.upkeep import collect
        from sims_core.store.store import Store

        opened = Store.open(existing_store(store).root)
        gone = collect(opened, older_than, dry_run)
        if as_json:
            print(json.dumps({"store": str(opened.root), "dry_run": dry_run, **asdict(gone)}))
            return
        for line in (*gone.artifacts, *gone.decoded, *gone.leftovers):
            print(shown(line))
        did = "would remove" if dry_run else "removed"
        print(
            f"{did} {len(gone.artifacts)} artifacts of {gone.bytes} bytes, {len(gone.decoded)} "
            f"decoded training sets of {gone.decoded_bytes}, and {len(gone.leftovers)} leftovers; "
            f"what is younger than {older_than:g} day{'s' if older_than != 1 else ''} stays"
        )


@store_app.command("doctor")
def store_doctor(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Say whether store and machine are fit for a long run; exit 1 if something is amiss."""
    with errors():
        from sims_core.reports.doctor import examine

        found = examine(existing_store(store))
        if as_json:
            print(json.dumps([{"text": each.text, "amiss": each.amiss} for each in found]))
        else:
            for each in found:
                print(f"{'AMISS' if each.amiss else 'ok   '}  {shown(each.text)}")
        if any(each.amiss for each in found):
            raise typer.Exit(1)
