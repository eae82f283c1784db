"""What a machine cannot compute is said before any work starts."""

import pytest

from sims_core.common.errors import BadInput
from sims_core.data.config import GaussianData
from sims_core.engine.execution import Execution
from sims_core.nets.config import BaseConfig, MLPConfig, ModelConfig
from sims_core.studies.experiment import Experiment
from sims_core.studies.planner import kind_of


def check_machine(experiment, execution):
    kind_of(experiment.data).check_machine(experiment, execution)


def experiment(**changes):
    config = {"training": {"batch_size": 6}, "sims": {"batch_size": 4}, **changes}
    return Experiment.model_validate(config)


@pytest.mark.parametrize(
    ("changes", "execution", "message"),
    [
        ({}, {"num_processes": 5}, r"a batch of 4 images \(sims\.batch_size\)"),
        ({"sims": {}}, {"num_processes": 7}, r"a batch of 6 images \(training\.batch_size\)"),
        ({"training": {"precision": "fp16"}}, {}, r"training\.precision fp16 needs a GPU"),
        ({"sampler": {"precision": "fp16"}}, {}, r"sampler\.precision fp16 needs a GPU"),
    ],
)
def test_refused(changes, execution, message):
    with pytest.raises(BadInput, match=message):
        check_machine(experiment(**changes), Execution(**execution))


def test_what_can_be_computed_passes():
    check_machine(experiment(), Execution(num_processes=4))
    check_machine(
        experiment(training={"precision": "fp16"}, sampler={"precision": "fp16"}),
        Execution(device="cuda:1"),
    )
    # An imported base is not trained, and points are trained in one process.
    base = BaseConfig(imported="mine")
    check_machine(experiment(base=base, sims={}), Execution(num_processes=7))
    points = Experiment(data=GaussianData(), model=ModelConfig(net=MLPConfig()))
    check_machine(points, Execution(num_processes=10_000))
