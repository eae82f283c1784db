"""What is killed: real commands whose whole work takes seconds."""

from __future__ import annotations

import runpy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

CHECKPOINT_IMAGES = 128
POINTS_PER_IMAGE = 50
"""As in training/points.py: a checkpoint of points is that much rarer than one of images."""
SCIENCE = {
    **{"training.kimg": "1.5", "model.net.block_out_channels": "[8,16]"},
    **{"model.net.norm_num_groups": "4", "sampler.num_steps": "3"},
    **{"evaluation.allow_small_n": "true", "evaluation.kid_subset_size": "16"},
    **{"evaluation.num_preview": "4", "evaluation.classifier.kimg": "1"},
}
LOOP = {
    **{"sims.n_s": "32", "sims.budget_mimg": "0.0005", "evaluation.num_images": "64"},
    **{"pollution_sizes": "32", "generations": "2", "run_name": "run"},
}
STUDY = {
    **{"omegas": "1,2", "budgets": "0.00025,0.0005", "n_s": "32", "select_images": "32"},
    **{"final_images": "48", "finalists": "1", "run_name": "study"},
}
POINTS = {
    **{"generations": "2", "omegas": "1", "pollution_sizes": "20", "scan_omegas": "[]"},
    **{"data.replicates": "2", "data.num_points": "50", "sims.n_s": "50", "run_name": "points"},
    **{"point_evaluation.num_points": "50", "point_evaluation.empirical_points": "10"},
    **{"training.kimg": "8", "model.net.hidden_features": "16"},
}
LATENTS = {
    **{"pollution_sizes": "100", "evaluation.num_images": "200", "sims.n_s": "64"},
    **{"model.net.image_size": "4", "model.net.channels": "2", "generations": "1"},
}

Command = Sequence[str]


@dataclass(frozen=True)
class Scenario:
    """Commands in their order; `--store` is added to each. Those of one step run at once."""

    name: str
    steps: Sequence[Sequence[Command]]
    settings: Mapping[str, str] = field(default_factory=dict)
    share: int = 4
    """Of the kills, relative to the others'."""
    interval: int = CHECKPOINT_IMAGES
    """Between two checkpoints, in the units in which a training tells of its progress."""


def _run(preset: str, parameters: Mapping[str, str], *options: str) -> Command:
    given = [word for name, value in parameters.items() for word in ("-p", f"{name}={value}")]
    return ["run", preset, *given, "--json", *options]


def write_pictures(folder: Path, count: int) -> None:
    """Digits as PNG files, in a folder for each class."""
    from sims_core.data.config import DigitsData
    from sims_core.data.digits import load_digits_uint8
    from sims_core.data.grid import encode_png

    images, labels = load_digits_uint8(DigitsData(num_images=count))
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = folder / f"{label}" / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(image))


def scenarios(folder: Path, wanted: Sequence[str]) -> list[Scenario]:
    """Those that are wanted, all if none is named; what they read is written to `folder`."""
    pictures, many, autoencoder = (folder / name for name in ("few", "many", "autoencoder"))
    science = {name: value for name, value in SCIENCE.items() if name != "sampler.num_steps"}
    imported: Command = ["data", "import", str(pictures), "--name", "px"]
    encoded: Command = ["data", "encode", "px", "--autoencoder", str(autoencoder), "--name", "own"]
    digits = _run("sims-loop/digits", SCIENCE | LOOP, "--direct")
    other = _run("sims-loop/digits", SCIENCE | LOOP | {"omegas": "2", "run_name": "b"}, "--direct")
    found = [
        Scenario("digits", [[digits]], share=6),
        Scenario(
            "gaussian2d",
            [[_run("sims-loop/gaussian2d-quick", POINTS, "--direct")]],
            interval=CHECKPOINT_IMAGES * POINTS_PER_IMAGE,
        ),
        Scenario(
            "self-improvement", [[_run("self-improvement/digits", SCIENCE | STUDY, "--direct")]]
        ),
        Scenario(
            "latents",
            [
                [imported],
                [encoded],
                [_run("sims-loop/own-images", science | LOOP | LATENTS, "--direct")],
            ],
        ),
        Scenario("two processes", [[digits]], {"SIMS_PROCESSES": "2"}),
        Scenario("import", [[["data", "import", str(many), "--name", "own"]]]),
        Scenario("two at once", [[digits, other]]),
        Scenario("digits, Prefect", [[_run("sims-loop/digits", SCIENCE | LOOP)]], share=1),
    ]
    chosen = [each for each in found if not wanted or each.name in wanted]
    names = {each.name for each in chosen}
    if "latents" in names:
        write_pictures(pictures, 200)
        runpy.run_path(str(Path(__file__).parents[1] / "autoencoder.py"))["save"](autoencoder)
    if "import" in names:
        write_pictures(many, 1797)
    return chosen
