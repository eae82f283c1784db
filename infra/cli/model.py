"""`sims model`: imports models into the store, under a name that experiments start from."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.cli.shell import (
    JsonOption,
    StoreOption,
    errors,
    existing_store,
    print_list,
    tell_renamed,
    use_store,
)
from infra.environment import apply_environment_defaults

if TYPE_CHECKING:  # what a command needs is imported when it runs
    from sims_core.nets.config import ImportedModel, ModelConfig
    from sims_core.store.store import Store

model_app = typer.Typer(no_args_is_help=True, help="Import base models into the store; list them.")


SourceArgument = Annotated[
    str,
    typer.Argument(
        help="Folder of a diffusers pipeline or network (UNet2DModel with its scheduler, "
        "safetensors), its id on the Hugging Face Hub (OWNER/NAME), a network pickle (.pkl) of "
        "EDM or EDM2, or a model artifact of a store."
    ),
]
SigmaDataOption = Annotated[
    float,
    typer.Option(
        "--sigma-data",
        min=1e-3,
        help="Deviation of its training data in [-1, 1], where the file does not say it; "
        "weighs the auxiliary's loss.",
    ),
]
NumClassesOption = Annotated[
    int | None,
    typer.Option(
        "--num-classes",
        min=1,
        help="Classes of a diffusers network that does not say how many it has, or that has "
        "an embedding more than the data have classes.",
    ),
]


@model_app.command("import")
def model_import(
    source: SourceArgument,
    name: Annotated[str, typer.Option("--name", help="What to call it in this store.")],
    sigma_data: SigmaDataOption = 0.5,
    num_classes: NumClassesOption = None,
    revision: Annotated[
        str | None,
        typer.Option("--revision", help="Commit, tag or branch of a Hub id (else main)."),
    ] = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Import a model as the base of runs.

    `sims run FLOW/PRESET -p base.imported=NAME -p generations=1` starts from it.
    """
    with errors():
        use_store(store)
        apply_environment_defaults()
        from infra.cli.progress import run_shown
        from sims_core.nets.importing import find_model_source, find_on_hub
        from sims_core.nets.names import MODELS, check_model_name
        from sims_core.nets.stages import IMPORT_MODEL
        from sims_core.settings import Settings, writable_store

        check_model_name(name)
        folder, hub = find_on_hub(source, revision)
        found = find_model_source(folder, sigma_data, num_classes)
        model = found.imported
        opened = writable_store()
        before = MODELS.stands_for(opened, name)
        execution = Settings.read().execution()
        files = execution.files.model_copy(update={"imported": folder})
        request = IMPORT_MODEL.request(model)
        cached = run_shown(opened, execution.model_copy(update={"files": files}), request)

        def place(model: ImportedModel) -> str:
            return IMPORT_MODEL.request(model).ref.location

        MODELS.give_again(opened, name, before, model, place)
        row = {**_row(opened, name, model), "cached": cached, **hub}
        if found.details:
            row["file"] = found.details
        if before not in (None, model):
            row["stood_for"] = _row(opened, name, before)
            tell_renamed(_text(row["stood_for"]), _text(row))
        print(json.dumps(row) if as_json else "\n".join([_text(row), *_more(row)]))


def _row(store: Store, name: str, model: ImportedModel) -> dict[str, Any]:
    from sims_core.nets.build import image_net
    from sims_core.nets.stages import IMPORT_MODEL

    ref, net, schedule = (
        IMPORT_MODEL.request(model).ref,
        image_net(model.model),
        model.model.schedule,
    )
    details = store.manifest(ref).details if store.path(ref).exists() else {}
    known = model.model.conditioned
    prediction = schedule.prediction_type if schedule else known.kind if known else "edm"
    return {
        "name": name,
        "artifact": ref.location,
        "channels": net.channels,
        "image_size": net.image_size,
        "num_classes": net.num_classes,
        "parameters": details.get("parameters"),
        "prediction": prediction,
        "zero_snr": bool(schedule and schedule.rescale_betas_zero_snr),
        **(_description(model.model) if known else {}),
        **({"file": details["file"]} if "file" in details else {}),
    }


def _description(model: ModelConfig) -> dict[str, Any]:
    """The parts of one of EDM's and EDM2's models."""
    dumped = model.model_dump(mode="json")
    low, high = model.conditioned.sigma_range if model.conditioned else (0.0, math.inf)
    return {
        "network": dumped["net"],
        "preconditioning": model.conditioned and model.conditioned.model_dump(mode="json"),
        "loss": dumped.get("loss"),
        "sigma_min": low,
        "sigma_max": None if math.isinf(high) else high,
    }


def _more(row: dict[str, Any]) -> list[str]:
    """Lines about where it is from, what it is made of and what is not used."""
    lines = [*_parts(row), *row.get("file", {}).get("said", [])]
    if hub := row.get("hub"):
        lines.insert(0, f"{hub['id']} at commit {hub['commit']}")
    return [f"  {line}" for line in lines]


def _parts(row: dict[str, Any]) -> list[str]:
    """Lines about one of EDM's and EDM2's models."""
    if "network" not in row:
        return []

    def listed(values: dict[str, Any]) -> str:
        values = {key: value for key, value in values.items() if key != "kind"}
        return ", ".join(f"{key} {value}" for key, value in values.items() if value is not None)

    net = listed(row["network"])
    lines = [f"network {row['network']['kind']}: {net}"]
    scheme = row["preconditioning"]
    high = "any" if row["sigma_max"] is None else f"{row['sigma_max']:g}"
    levels = f"noise levels {row['sigma_min']:g} to {high}"
    lines.append(f"preconditioning {scheme['kind']}: {listed(scheme)}; {levels}")
    if (loss := row["loss"]) is not None:
        lines.append(f"loss {loss['kind']}: {listed(loss)}; fine-tunes of it use this one")
    return lines


def _text(row: dict[str, Any]) -> str:
    classes = f"{row['num_classes']} classes" if row["num_classes"] else "unconditional"
    count = f"{row['parameters'] / 1e6:.1f} M" if row["parameters"] else "unknown number of"
    return (
        f"{row['name']}: {row['channels']} x {row['image_size']} x {row['image_size']}, {classes}, "
        f"{count} parameters, predicts {row['prediction']}"
        + (", zero terminal SNR" if row["zero_snr"] else "")
        + f"; {row['artifact']}"
        + (" (was there)" if row.get("cached") else "")
    )


@model_app.command("ls")
def model_ls(store: StoreOption = None, as_json: JsonOption = False) -> None:
    """List the imported models: name, shape, parameters, what it predicts, artifact."""
    with errors():
        opened = existing_store(store)
        from sims_core.nets.names import MODELS

        rows = [_row(opened, name, MODELS.find(opened, name)) for name in MODELS.given(opened)]
        print_list(opened, "models", rows, _text, as_json)
