"""`sims data`: imports images into the store, under a name that presets and parameters use."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from infra.cli.encoding import draw_raw_latents, encode_images, reading, scaling_asked
from infra.cli.shell import (
    JsonOption,
    StoreOption,
    errors,
    existing_store,
    print_list,
    tell_renamed,
    use_store,
    worded,
)
from infra.environment import apply_environment_defaults
from sims_core.common.errors import BadInput
from sims_core.common.seeding import MOST_SEED
from sims_core.common.values import counted

if TYPE_CHECKING:  # what a command needs is imported when it runs
    from sims_core.data.config import ImportedSet
    from sims_core.store.store import Store

data_app = typer.Typer(no_args_is_help=True, help="Import images into the store; list them.")
MAX_SHOWN = 20


SourceArgument = Annotated[
    Path,
    typer.Argument(
        help="Folder or zip of images, WebDataset, Parquet, Hugging Face save_to_disk folder, "
        "CIFAR-10 archive, MNIST npz or folder of idx files."
    ),
]
SizeOption = Annotated[
    int | None,
    typer.Option("--size", min=4, max=4096, help="Crop to the central square and resize."),
]
ChannelsOption = Annotated[
    Literal["1", "3"] | None,
    typer.Option("--channels", help="Convert all to grey (1) or RGB (3)."),
]
LabelsOption = Annotated[
    str | None,
    typer.Option(
        "--labels",
        metavar="FILE|none",
        help="CSV or JSON with each image's class; none: leave the classes out. Else the "
        "source's own, or the sub-folders.",
    ),
]
LabelColumnOption = Annotated[
    str | None,
    typer.Option(
        "--label-column",
        metavar="COLUMN",
        help="Column of a table, or field of a WebDataset's JSON, that has the classes.",
    ),
]
SplitOption = Annotated[
    str | None, typer.Option("--split", help="Where the source has several (train).")
]
SkipBrokenOption = Annotated[
    bool,
    typer.Option(
        "--skip-broken", help="List images that cannot be read, parts that are missing; go on."
    ),
]


@data_app.command("import")
def data_import(
    source: SourceArgument,
    name: Annotated[str, typer.Option("--name", help="What to call it in this store.")],
    size: SizeOption = None,
    channels: ChannelsOption = None,
    labels: LabelsOption = None,
    label_column: LabelColumnOption = None,
    split: SplitOption = None,
    skip_broken: SkipBrokenOption = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Import images as shards. The same source with the same options is imported once."""
    with errors():
        use_store(store)
        apply_environment_defaults()
        from sims_core.data.names import DATASETS, check_name
        from sims_core.settings import writable_store

        check_name(name)
        opened = writable_store()
        options: dict[str, Any] = {"split": split, "size": size, "skip_broken": skip_broken}
        options["channels"] = int(channels) if channels else None
        options["label_column"] = label_column
        before = DATASETS.stands_for(opened, name)
        dataset, cached, told = _import(opened, source, labels, options)
        _list_skipped(opened, dataset)
        _name(opened, name, before, dataset, cached, as_json, told)


ImagesArgument = Annotated[
    str,
    typer.Argument(
        metavar="IMAGES",
        help="Name that `sims data import` gave to images; or a zip of EDM2's raw latents.",
    ),
]
AutoencoderOption = Annotated[
    Path,
    typer.Option(
        "--autoencoder",
        help="Folder of a diffusers AutoencoderKL, or of a pipeline with one (safetensors).",
    ),
]
ScalingOption = Annotated[
    Literal["standardized", "autoencoder", "edm2"] | None,
    typer.Option(
        "--scaling",
        help="standardized (else): each channel to mean 0 and deviation 0.5; autoencoder: as "
        "diffusers' pipelines do, for a base that was trained so; edm2: by EDM2's numbers.",
    ),
]
ScalingOfOption = Annotated[
    str | None,
    typer.Option(
        "--scaling-of",
        metavar="MODEL",
        help="Scale as the file of an imported EDM2 network says.",
    ),
]


@data_app.command("encode")
def data_encode(
    images: ImagesArgument,
    autoencoder: AutoencoderOption,
    name: Annotated[str, typer.Option("--name", help="What to call the latents in this store.")],
    scaling: ScalingOption = None,
    scaling_of: ScalingOfOption = None,
    seed: Annotated[
        int,
        typer.Option(
            "--seed", min=0, max=MOST_SEED, help="Of the draws from the images' posteriors."
        ),
    ] = 0,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Encode images as latents, once; then presets and parameters use the latents by their name."""
    with errors():
        use_store(store)
        apply_environment_defaults()
        from sims_core.data.names import DATASETS, check_images_are_whole, check_name
        from sims_core.data.raw_latents import is_raw_latents
        from sims_core.settings import Settings, writable_store
        from sims_core.store.store import Store

        check_name(name)
        if is_raw_latents(file := Path(images).expanduser().absolute()):
            opened = writable_store()
            before = DATASETS.stands_for(opened, name)
            config = scaling_asked(opened, scaling, scaling_of, seed)
            dataset, cached, left_out = draw_raw_latents(opened, file, autoencoder, config)
            told = {"notes": [], "left_out": left_out}
            _name(opened, name, before, dataset, cached, as_json, told)
            return
        opened = Store.open(Settings.read().store, create=False)
        found = DATASETS.find(opened, images)
        if found.encoding is not None:
            raise BadInput(f"{images} is encoded already: give the name of the images themselves")
        if name == images:
            raise BadInput(f"--name {name} is the images' own: give the latents another")
        check_images_are_whole(opened, images, found)
        before = DATASETS.stands_for(opened, name)
        config = scaling_asked(opened, scaling, scaling_of, seed)
        dataset, cached = encode_images(writable_store(), found, autoencoder, config)
        _name(opened, name, before, dataset, cached, as_json)


def _name(
    store: Store,
    name: str,
    before: ImportedSet | None,
    dataset: ImportedSet,
    cached: bool,
    as_json: bool,
    told: dict[str, Any] | None = None,
) -> None:
    """Gives the set its name, and tells of it and of what was not imported.

    Args:
        before: what the name stood for when this command began.

    Raises:
        BadInput: another command has given the name to another set since.
    """
    from sims_core.data.names import DATASETS, images_of
    from sims_core.latents.stages import modelled_by

    DATASETS.give_again(store, name, before, dataset, lambda each: images_of(each).location)
    details = store.manifest(modelled_by(dataset)).details
    row = {**_row(name, dataset), **details, "cached": cached, **(told or {})}
    if before not in (None, dataset):
        row["stood_for"] = _row(name, before)
        tell_renamed(_text(row["stood_for"]), _text(row))
    if told is not None:
        row["notes"] = [worded(note) for note in row["notes"]]
        for line in _closing_lines(row):
            print(worded(line), file=sys.stderr)
    print(json.dumps(row) if as_json else _text(row))


def _closing_lines(row: dict[str, Any]) -> list[str]:
    """What was decided about the labels, what was not imported and why, what was changed."""
    from sims_core.common.shown import shown

    lines = list(row["notes"])
    if classes := row.get("classes"):
        first = ", ".join(f"{i} = {shown(c)}" for i, c in enumerate(classes[:MAX_SHOWN]))
        more = f", ... ({len(classes)} classes)" if len(classes) > MAX_SHOWN else ""
        lines.append(f"classes in order: {first}{more}")
    for what, tally in (("not imported", row["left_out"]), ("imported", row.get("remarks", {}))):
        for reason, each in tally.items():
            named = ", ".join(each["first"]) + (
                ", ..." if each["count"] > len(each["first"]) else ""
            )
            lines.append(f"{what}: {each['count']} x {reason}: {named}")
    return lines


def _import(
    store: Store, source: Path, labels: str | None, options: dict[str, Any]
) -> tuple[ImportedSet, bool, dict[str, Any]]:
    """Runs the stage unless the store has its artifact; returns what there is to tell, too."""
    from infra.cli.progress import run_shown
    from sims_core.data.importing import (
        ProfilesFound,
        imported_set,
        known_details,
        plan_import,
    )
    from sims_core.data.raw import NO_LABELS
    from sims_core.data.stages import IMPORT

    file = None if labels in (None, NO_LABELS) else _existing(Path(labels))
    execution = reading(source, file)
    plan = plan_import(execution.files, labels=None if file else labels, **options)
    told: dict[str, Any] = {"notes": list(plan.notes), "left_out": plan.left_out.row()}
    config = plan.config
    try:
        cached = run_shown(store, execution, IMPORT.request(config))
    except ProfilesFound:
        config = config.model_copy(update={"srgb": True})
        cached = run_shown(store, execution, IMPORT.request(config))
    ref = IMPORT.request(config).ref
    if not known_details(store.manifest(ref).details):
        told["notes"].append(
            "imported by an earlier version, which did not look for colour profiles, several "
            "frames, 16 bits and transparency of grey pictures"
        )
    return imported_set(config, store.open_artifact(ref)), cached, told


def _existing(path: Path) -> Path:
    if not path.expanduser().is_file():
        raise BadInput(f"--labels {path}: no such file; give a CSV or JSON file, or none")
    return path.expanduser().absolute()


def _list_skipped(store: Store, dataset: ImportedSet) -> None:
    from sims_core.data.importing import SKIPPED_FILE
    from sims_core.data.names import images_of

    path = store.path(images_of(dataset)) / SKIPPED_FILE
    if not path.exists():
        return
    skipped = json.loads(path.read_bytes())
    for image in skipped[:MAX_SHOWN]:
        print(worded(f"skipped {image['name']}: {image['reason']}"), file=sys.stderr)
    print(f"skipped {counted(len(skipped), 'image')}, all listed in {path}", file=sys.stderr)


def _row(name: str, dataset: ImportedSet) -> dict[str, Any]:
    from sims_core.latents.stages import modelled_by

    latents = dataset.modelled.model_dump(include={"channels", "height", "width"})
    return {
        "name": name,
        "artifact": modelled_by(dataset).location,
        **dataset.contents.model_dump(),
        "layout": dataset.config.layout,
        "latents": latents if dataset.encoding else None,
    }


def _text(row: dict[str, Any]) -> str:
    classes = f"{row['num_classes']} classes" if row["num_classes"] else "no labels"
    latents = row["latents"]
    encoded = (
        f", as latents of {latents['channels']} x {latents['height']} x {latents['width']}"
        if latents
        else ""
    )
    if row.get("psnr") is not None:
        encoded += f" (sigma_data {row['sigma_data']:.3g}; decoded again: {row['psnr']:.1f} dB)"
    return (
        f"{row['name']}: {counted(row['count'], 'image')} of {row['channels']} x {row['height']} x "
        f"{row['width']}, {classes}, from {row['layout']}{encoded}; {row['artifact']}"
        + (" (was there)" if row.get("cached") else "")
    )


@data_app.command("ls")
def data_ls(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """List the imported data sets: name, count, shape, classes, artifact."""
    with errors():
        opened = existing_store(store)
        from sims_core.data.names import DATASETS

        rows = [_row(name, DATASETS.find(opened, name)) for name in DATASETS.given(opened)]
        print_list(opened, "data sets", rows, _text, as_json)
