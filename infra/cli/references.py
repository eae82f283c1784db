"""References of `sims evaluate` that are files: `--against FILE.npz`, and writing one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sims_core.common.digest import file_sha256
from sims_core.common.errors import BadInput
from sims_core.settings import Settings, writable_store
from sims_core.studies.against_statistics import Measured

SUFFIX = ".npz"
ONLY_FID = "KID, precision and recall need images, a mean and covariance give FID alone"


def measure_against(measured: Measured, file: Path) -> dict[str, Any]:
    """FID of images against a file; what `--json` prints.

    Raises:
        BadInput: the file is no reference.
    """
    from infra.cli.progress import run_progress
    from infra.cli.runs import run_groups, shown
    from sims_core.catalog import run_stage
    from sims_core.evaluation.figures import read_metrics
    from sims_core.evaluation.reference_files import read_reference

    read_reference(file)
    stages = measured.against(file_sha256(file))
    store, execution = writable_store(), Settings.read().execution()
    files = execution.files.model_copy(update={"imported": file})
    run_stage(store, stages[0].request, execution.model_copy(update={"files": files}))
    progress = run_progress(len(stages))
    with shown(progress):
        run_groups(store, [("", stages)], progress)
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

    from infra.cli.progress import run_progress
    from infra.cli.runs import run_groups, shown
    from sims_core.evaluation.images import STATISTICS_FILE
    from sims_core.evaluation.reference_files import write_reference

    if file.suffix != SUFFIX or not file.absolute().parent.is_dir():
        raise BadInput(f"--reference-out {file} must be an {SUFFIX} in a folder that is there")
    store, stages = writable_store(), measured.stages
    progress = run_progress(len(stages))
    with shown(progress):
        run_groups(store, [("", stages)], progress)
    found = load_file(store.open_artifact(stages[-1].ref) / STATISTICS_FILE)
    write_reference(file, {name: found[name].astype("float64") for name in ("mu", "sigma")})
    return {
        "images": {"name": measured.images.name, "artifact": measured.images.ref.location},
        "features": measured.evaluation.features,
        "count": measured.count,
        "reference_out": str(file),
    }
