"""The stages of references that are files: one stores the file, one measures FID against it."""

from __future__ import annotations

from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric

from sims_core.common.digest import file_sha256
from sims_core.common.errors import BadInput, SimsError
from sims_core.engine.stage import StageContext
from sims_core.evaluation.config import ReferenceFileConfig, StatisticsFidConfig
from sims_core.evaluation.figures import write_metrics
from sims_core.evaluation.images import STATISTICS_FILE
from sims_core.evaluation.reference_files import read_reference


def import_reference(context: StageContext[ReferenceFileConfig]) -> dict[str, Any]:
    """Stage `import_reference`: no inputs; reads what `execution.files.reference` names.

    Raises:
        BadInput: it is gone, or another file.
    """
    path = context.execution.files.reference
    if path is None or file_sha256(path) != context.config.sha256:
        raise BadInput("the reference is no longer in the store, or changed: name its file again")
    moments = read_reference(path)
    save_file(moments, context.directory / STATISTICS_FILE)
    return {"dim": len(moments["mu"])}


def fid_against_statistics(context: StageContext[StatisticsFidConfig]) -> dict[str, Any]:
    """Stage `statistics_fid`: inputs `generated` (features) and `real` (a reference).

    Raises:
        BadInput: they are of features of different number.
        SimsError: the FID is not finite.
    """
    theirs, ours = (
        {
            name: array.astype(np.float64)  # ours have a mean in float32
            for name, array in load_file(context.open(source) / STATISTICS_FILE).items()
        }
        for source in ("real", "generated")
    )
    if theirs["mu"].shape != ours["mu"].shape:
        raise BadInput(
            f"the reference is of {len(theirs['mu'])} features, the images' have "
            f"{len(ours['mu'])}: pass the `features` that it was made with"
        )
    fid = float(fid_statistics_to_metric(ours, theirs, verbose=False)[KEY_METRIC_FID])
    if not np.isfinite(fid):
        raise SimsError("fid not finite: the generated images are degenerate")
    figures = {"fid": fid, "n_generated": context.config.count}
    write_metrics(context.directory, figures)
    return figures
