"""`sims store push` and `pull`, and what other commands say of the bucket with --remote."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli.shell import JsonOption, StoreOption, errors, existing_store, use_store
from sims_core.common.errors import BadInput
from sims_core.common.shown import shown

if TYPE_CHECKING:  # what a command needs is imported when it runs
    from sims_core.reports.past_runs import PastRun
    from sims_core.store.remote.bucket import Bucket
    from sims_core.store.remote.client import Client

RemoteOption = Annotated[
    bool, typer.Option("--remote", help="Of the bucket that SIMS_REMOTE names, not of the store.")
]
RunsArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[RUN ...]", help="These runs; none given: all.")
]


def client() -> Client:
    """The bucket that the settings name.

    Raises:
        BadInput: they name none.
    """
    from sims_core.settings import Settings

    url = Settings.read().remote
    if url is None:
        raise BadInput(
            "SIMS_REMOTE is not set: name a bucket as s3://bucket/prefix, gs://, az:// or "
            "file:///folder"
        )
    from sims_core.store.remote.bucket import open_bucket

    return open_bucket(url)


def _bucket(store: Path | None, is_there: bool) -> Bucket:
    """The bucket behind the store that is named.

    Args:
        is_there: Whether the store must be there.
    """
    from sims_core.settings import writable_store
    from sims_core.store.remote.bucket import Bucket

    use_store(store)
    if is_there:
        existing_store(store)
    client()
    behind = writable_store().behind
    assert isinstance(behind, Bucket)  # noqa: S101 - SIMS_REMOTE is set
    return behind


def store_push(
    runs: RunsArgument = None, store: StoreOption = None, as_json: JsonOption = False
) -> None:
    """Bring the store's whole artifacts and runs to the bucket of SIMS_REMOTE, or those of some
    runs; what it has already is not sent again."""
    with errors():
        from sims_core.reports.past_runs import find_run, past_runs
        from sims_core.reports.remote_runs import artifacts_needed
        from sims_core.store.remote.bucket import bring_all

        bucket = _bucket(store, is_there=True)
        opened = bucket.store
        folders = [each.folder for each in past_runs(opened)]
        refs = opened.artifacts()
        if runs:
            folders = [find_run(opened, name).folder for name in runs]
            refs = [ref for each in folders for ref in artifacts_needed(each)]
        done, bad = bring_all(opened, dict.fromkeys(refs), bucket)
        for folder in folders:
            bucket.publish_run(folder)
        told = {"artifacts": done, "runs": len(folders), "damaged": bad}
        text = f"{done} artifacts and {len(folders)} runs are in {bucket.client.url}"
        print(json.dumps(told) if as_json else text)
        if bad:
            raise BadInput(f"{bad} artifacts are damaged or missing: see `sims store verify`")


def store_pull(
    runs: RunsArgument = None, store: StoreOption = None, as_json: JsonOption = False
) -> None:
    """Bring runs and their artifacts from the bucket of SIMS_REMOTE into the store, or everything
    that it has; every byte is checked."""
    with errors():
        from sims_core.reports.remote_runs import artifacts_needed, bring_run
        from sims_core.store.remote.runs import run_names
        from sims_core.store.remote.upkeep import artifacts_in

        bucket = _bucket(store, is_there=False)
        names = run_names(bucket.client)
        if unknown := sorted(set(runs or ()) - set(names)):
            raise BadInput(
                f"no run {unknown[0]!r} in {bucket.client.url}; runs: "
                + (", ".join(names) or "none yet")
            )
        refs = [] if runs else artifacts_in(bucket.client)
        for name in runs or names:
            refs += artifacts_needed(bring_run(bucket, name))
        wanted = dict.fromkeys(refs)
        missing = [ref for ref in wanted if not bucket.obtain(ref)]
        told = {
            "artifacts": len(wanted) - len(missing),
            "runs": len(runs or names),
            "missing": [ref.location for ref in missing],
        }
        text = f"{told['artifacts']} artifacts and {told['runs']} runs are in {bucket.store.root}"
        print(json.dumps(told) if as_json else text)
        if missing:
            raise BadInput(
                f"{len(missing)} artifacts are damaged or missing in the bucket, the first is "
                f"{missing[0].location}: run again what made them"
            )


def verify_remote(as_json: bool) -> None:
    """What `sims store verify --remote` does."""
    from sims_core.store.remote.upkeep import artifacts_in, problems_in

    bucket = client()
    artifacts, damaged = len(artifacts_in(bucket)), list(problems_in(bucket))
    if as_json:
        print(json.dumps({"remote": bucket.url, "artifacts": artifacts, "damaged": damaged}))
    for line in () if as_json else damaged:
        print(shown(line))
    if not (damaged or as_json):
        print(f"{artifacts} artifacts in {bucket.url}: all whole")
    if damaged:
        raise typer.Exit(1)


def du_remote(as_json: bool) -> None:
    """What `sims store du --remote` does."""
    from sims_core.store.remote.upkeep import usage

    used = usage(client())
    sizes = {
        "files": used.blobs,
        "unneeded": used.unneeded,
        "unfinished": used.unfinished,
        "runs": used.runs,
        "rest": used.rest,
    }
    if as_json:
        print(json.dumps({"kind": used.by_kind, "stage": used.by_stage, **sizes}))
        return
    for what, rows in (("kind", used.by_kind), ("stage", used.by_stage)):
        print(f"{what:<40}{'artifacts':>10}{'bytes':>16}")
        for name, (count, size) in rows.items():
            print(f"{shown(name):<40}{count:>10}{size:>16}")
    print(f"files of artifacts, each once: {used.blobs} bytes, {used.unneeded} of no artifact")
    print(f"unfinished work: {used.unfinished} bytes; runs: {used.runs}; the rest: {used.rest}")


@contextmanager
def remote_runs() -> Iterator[tuple[str, list[PastRun]]]:
    """The bucket's URL and its runs, which are gone when the context is left."""
    from sims_core.reports.remote_runs import look_at_runs

    bucket = client()
    with TemporaryDirectory(prefix="sims-runs-") as folder:
        yield bucket.url, look_at_runs(bucket, Path(folder))
