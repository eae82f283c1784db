"""References of `sims evaluate` that are files: `--against FILE.npz`, and writing one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sims_core.common.digest import file_sha256
from sims_core.common.errors import BadInput
from sims_core.common.values import counted

if TYPE_CHECKING:  # what a command needs is imported when it runs
    from sims_core.engine.execution import DataFiles
    from sims_core.studies.against_statistics import Measured
    from sims_core.studies.comparison import Features, ImageSource

SUFFIX = ".npz"
ReferenceOut = Annotated[
    Path | None,
    typer.Option(
        "--reference-out", metavar="FILE.npz", help="Write mean and covariance of the images."
    ),
]


@dataclass(frozen=True)
class FileQuestion:
    """What `sims evaluate` is asked for where a reference is a file."""

    against: str | None
    reference_out: Path | None
    features: Features
    count: int | None
    allow_small_n: bool
    seed: int

    def check(self, **only_for_images: object) -> None:
        """Raises BadInput unless a reference is either read or written, and nothing is asked for
        that needs a reference of images."""
        if self.against is None and self.reference_out is None:
            raise BadInput("Missing option '--against' (or '--reference-out', which writes one)")
        if self.against is not None and self.reference_out is not None:
            raise BadInput("pass --against REFERENCE or --reference-out FILE.npz, not both")
        from sims_core.evaluation.config import ONLY_FID

        for option, given in only_for_images.items():
            if given:
                name = option.replace("_", "-")
                raise BadInput(f"--{name} needs a reference of images: {ONLY_FID}")

    def answer(self, images: ImageSource, files: DataFiles, as_json: bool) -> str:
        """Writes a reference, or compares with one; what is printed."""
        from sims_core.studies.against_statistics import plan_features

        measured = plan_features(
            images, files, self.features, self.count, self.allow_small_n, self.seed
        )
        if self.reference_out is not None:
            row = write_reference_of(measured, self.reference_out)
            text = f"wrote {self.reference_out}: {row['features']} features of " + counted(
                row["count"], "image"
            )
        else:
            row = measure_against(measured, Path(self.against or "").expanduser().absolute())
            text = text_against(row)
        return json.dumps(row) if as_json else text


def measure_against(measured: Measured, file: Path) -> dict[str, Any]:
    """FID of images against a file; what `--json` prints.

    Raises:
        BadInput: the file is no reference.
    """
    from infra.cli.progress import run_progress, shown
    from sims_core.evaluation.config import ONLY_FID
    from sims_core.evaluation.figures import read_metrics
    from sims_core.evaluation.reference_files import read_reference
    from sims_core.settings import Settings, writable_store
    from sims_core.studies.running import Runner

    read_reference(file)
    stages = measured.against(file_sha256(file))
    store, execution = writable_store(), Settings.read().execution()
    files = execution.files.model_copy(update={"reference": file})
    execution = execution.model_copy(update={"files": files})
    progress = run_progress(len(stages))
    with shown(progress):
        Runner(store, execution, progress).run("", stages)
    metrics = stages[-1].ref
    return {
        "images": {"name": measured.images.name, "artifact": measured.images.ref.location},
        "against": {"name": str(file), "artifact": stages[0].ref.location},
        "features": measured.evaluation.features,
        "weights_sha256": measured.evaluation.weights_sha256,
        "metrics": read_metrics(store, metrics),
        "not_measured": ONLY_FID,
        "store": str(store.root),
        "artifact": metrics.location,
    }


def text_against(row: dict[str, Any]) -> str:
    """`measure_against` for people."""
    metrics = row["metrics"]
    return (
        f"FID {metrics['fid']:z.4f}: n = {metrics['n_generated']} of {row['images']['name']} "
        f"against {row['against']['name']}, {row['features']} features; {row['not_measured']}"
        f"\nmetrics: {row['store']}/{row['artifact']}"
    )


def write_reference_of(measured: Measured, file: Path) -> dict[str, Any]:
    """Writes mean and covariance of images' features; what `--json` prints.

    Raises:
        BadInput: the file's name or folder does not do.
    """
    from safetensors.numpy import load_file

    from infra.cli.progress import run_progress, shown
    from sims_core.evaluation.images import STATISTICS_FILE
    from sims_core.evaluation.reference_files import write_reference
    from sims_core.settings import Settings, writable_store
    from sims_core.studies.running import Runner

    if file.suffix != SUFFIX or not file.absolute().parent.is_dir():
        raise BadInput(f"--reference-out {file} must be an {SUFFIX} in a folder that is there")
    store, stages = writable_store(), measured.stages
    progress = run_progress(len(stages))
    with shown(progress):
        Runner(store, Settings.read().execution(), progress).run("", stages)
    found = load_file(store.open_artifact(stages[-1].ref) / STATISTICS_FILE)
    write_reference(file, {name: found[name].astype("float64") for name in ("mu", "sigma")})
    return {
        "images": {"name": measured.images.name, "artifact": measured.images.ref.location},
        "features": measured.evaluation.features,
        "count": measured.count,
        "reference_out": str(file),
    }
