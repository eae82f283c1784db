"""What a machine cannot compute of an experiment: said before any work starts. Needs no torch."""

from __future__ import annotations

from sims_core.data.config import GaussianData
from sims_core.engine.execution import Execution, check_batch, check_precision
from sims_core.studies.experiment import Experiment


def check_machine(experiment: Experiment, execution: Execution) -> None:
    """Raises BadInput if some stage of the experiment could not run as `execution` says."""
    if isinstance(experiment.data, GaussianData):
        return
    training, sims, processes = experiment.training, experiment.sims, execution.num_processes
    check_precision("training.precision", training.precision, execution.device)
    check_precision("sampler.precision", experiment.sampler.precision, execution.device)
    check_batch("sims.batch_size", sims.batch_size, processes)
    if experiment.base.imported is None:
        check_batch("training.batch_size", training.batch_size, processes)
