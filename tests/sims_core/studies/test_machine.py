"""What a machine cannot compute is said before any work starts."""

import pytest

from sims_core.common.errors import BadInput
from sims_core.data.config import GaussianData
from sims_core.engine.execution import Execution
from sims_core.methods.standard import Standard
from sims_core.nets.config import MLPConfig, ModelConfig
from sims_core.studies.experiment import Experiment
from sims_core.studies.loop import Arm, LoopKind, plan_loop
from sims_core.studies.planner import kind_of


def check_machine(experiment, execution, *methods):
    methods = methods or (Standard(), experiment.sims)
    loop = LoopKind.fully_synthetic
    arms = tuple(Arm(method=method, loop=loop, pollution_size=8) for method in methods)
    plan = plan_loop(experiment, arms, 1, 0)
    kind_of(experiment.data).check_machine(experiment, execution, plan)


def experiment(**changes):
    config = {"training": {"batch_size": 6}, "sims": {"batch_size": 4}, **changes}
    return Experiment.model_validate(config)


@pytest.mark.parametrize(
    ("changes", "execution", "message"),
    [
        ({}, {"num_processes": 5}, r"a batch of 4 images \(sims\.batch_size\)"),
        ({"sims": {}}, {"num_processes": 7}, r"a batch of 6 images \(training\.batch_size\)"),
        (
            {"methods": {"neon": {"batch_size": 3}}},
            {"num_processes": 4},
            r"a batch of 3 images \(methods\.neon\.batch_size\)",
        ),
        ({"training": {"precision": "fp16"}}, {}, r"training\.precision fp16 needs a GPU"),
        ({"sampler": {"precision": "fp16"}}, {}, r"sampler\.precision fp16 needs a GPU"),
    ],
)
def test_refused(changes, execution, message):
    asked = experiment(**changes)
    used = [asked.template(kind) for kind in ("standard", "sims", "neon")]
    with pytest.raises(BadInput, match=message):
        check_machine(asked, Execution(**execution), *used)


def test_what_can_be_computed_passes():
    check_machine(experiment(), Execution(num_processes=4))
    check_machine(
        experiment(training={"precision": "fp16"}, sampler={"precision": "fp16"}),
        Execution(device="cuda:1"),
    )
    # What no method trains is not looked at, and points are trained in one process.
    check_machine(experiment(), Execution(num_processes=6), Standard())
    points = Experiment(data=GaussianData(), model=ModelConfig(net=MLPConfig()))
    check_machine(points, Execution(num_processes=10_000))
