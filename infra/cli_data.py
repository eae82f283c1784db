"""`sims data`: brings images into the store, under a name that presets and parameters use."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from infra.settings import Settings, apply_environment_defaults
from infra.shell import JsonOption, StoreOption, errors, use_store
from sims_core.config import ImportedSet
from sims_core.errors import BadInput
from sims_core.store import Store

data_app = typer.Typer(no_args_is_help=True, help="Bring your own images into the store.")
MAX_SHOWN = 20


@data_app.command("import")
def data_import(
    source: Annotated[
        Path,
        typer.Argument(
            help="Folder or zip of images, WebDataset, Parquet, Hugging Face save_to_disk folder, "
            "CIFAR-10 archive, MNIST npz or folder of idx files."
        ),
    ],
    name: Annotated[str, typer.Option("--name", help="What to call it in this store.")],
    size: Annotated[
        int | None,
        typer.Option("--size", min=4, max=4096, help="Crop to the central square and resize."),
    ] = None,
    channels: Annotated[
        Literal["1", "3"] | None,
        typer.Option("--channels", help="Convert all to grey (1) or RGB (3)."),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            "--labels",
            metavar="FILE|none",
            help="CSV or JSON with each image's class; none: leave the classes out. Else the "
            "source's own, or the sub-folders.",
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", help="Where the source has several (train).")
    ] = None,
    skip_broken: Annotated[
        bool, typer.Option("--skip-broken", help="List images that cannot be read and go on.")
    ] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Import images as shards. The same source with the same options is imported once."""
    with errors():
        use_store(store)
        apply_environment_defaults()
        from sims_core.datasets import DATASETS, check_name, images_of

        check_name(name)
        opened, options = _open_store(), {"split": split, "size": size, "skip_broken": skip_broken}
        options["channels"] = int(channels) if channels else None
        dataset, cached = _import(opened, source, labels, options)
        DATASETS.give(opened, name, dataset)
        details = opened.manifest(images_of(dataset)).details
        _list_skipped(opened, dataset)
        row = {**_row(name, dataset), **details, "cached": cached}
        print(json.dumps(row) if as_json else _text(row))


def _open_store() -> Store:
    return Store.open(Settings.read().store)


def _import(
    store: Store, source: Path, labels: str | None, options: dict[str, Any]
) -> tuple[ImportedSet, bool]:
    """Runs the stage unless the store has its artifact."""
    from infra.progress import PlainProgress
    from sims_core.image_import import NO_LABELS, imported_set, plan_import
    from sims_core.stages import IMPORT, run_stage

    files = (
        Settings.read()
        .execution()
        .files.model_copy(
            update={
                "imported": source.expanduser().absolute(),
                "labels": None if labels in (None, NO_LABELS) else _existing(Path(labels)),
            }
        )
    )
    execution = Settings.read().execution().model_copy(update={"files": files})
    config = plan_import(files, labels=None if files.labels else labels, **options)
    request = IMPORT.request(config)
    cached = store.is_whole(request.ref)
    progress = PlainProgress(1)
    progress.started("", "import")

    def advanced(done: int, total: int, unit: str, **figures: float) -> None:
        progress.advanced("import", done, total, unit, **figures)

    run_stage(store, request, execution, progress=advanced)
    return imported_set(config, store.open_artifact(request.ref)), cached


def _existing(path: Path) -> Path:
    if not path.expanduser().is_file():
        raise BadInput(f"--labels {path}: no such file; give a CSV or JSON file, or none")
    return path.expanduser().absolute()


def _list_skipped(store: Store, dataset: ImportedSet) -> None:
    from sims_core.datasets import images_of
    from sims_core.image_import import SKIPPED_FILE

    path = store.path(images_of(dataset)) / SKIPPED_FILE
    if not path.exists():
        return
    skipped = json.loads(path.read_bytes())
    for image in skipped[:MAX_SHOWN]:
        print(f"skipped {image['name']}: {image['reason']}", file=sys.stderr)
    print(f"skipped {len(skipped)} images, all listed in {path}", file=sys.stderr)


def _row(name: str, dataset: ImportedSet) -> dict[str, Any]:
    from sims_core.datasets import images_of

    return {
        "name": name,
        "artifact": images_of(dataset).location,
        **dataset.contents.model_dump(),
        "layout": dataset.config.layout,
    }


def _text(row: dict[str, Any]) -> str:
    classes = f"{row['num_classes']} classes" if row["num_classes"] else "no labels"
    return (
        f"{row['name']}: {row['count']} images of {row['channels']} x {row['height']} x "
        f"{row['width']}, {classes}, from {row['layout']}; {row['artifact']}"
        + (" (was there)" if row.get("cached") else "")
    )


@data_app.command("ls")
def data_ls(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """List the imported data sets: name, count, shape, classes, artifact."""
    with errors():
        use_store(store)
        from sims_core.datasets import DATASETS

        opened = Store.open(Settings.read().store, create=False)
        rows = [_row(name, DATASETS.find(opened, name)) for name in DATASETS.given(opened)]
        if as_json:
            print(json.dumps({"store": str(opened.root), "datasets": rows}))
            return
        for row in rows:
            print(_text(row))
        print(f"{len(rows)} data sets in {opened.root}")
