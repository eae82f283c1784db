"""The examples of CONTRIBUTING.md do what it says of them."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from sims_core import api
from sims_core.common import roles
from sims_core.data.config import DigitsData
from sims_core.data.digits import load_digits_uint8
from sims_core.diffusion.denoiser import EDMDenoiser
from sims_core.evaluation import metric
from sims_core.evaluation.metric import MeasuredSet, register
from sims_core.methods.base import METHODS
from sims_core.nets.base import NETS
from sims_core.nets.build import build_net, initialise
from sims_core.nets.config import ModelConfig
from sims_core.studies.experiment import Experiment
from sims_core.studies.loop import Arm, LoopKind, plan_loop
from sims_core.training.config import TrainingConfig

PAGE = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()
METHOD, METRIC, CONFIG, NETWORK = re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)


@pytest.fixture
def module(monkeypatch):
    """Runs an example as a module of that name."""

    def make(name, text):
        made = ModuleType(name)
        monkeypatch.setitem(sys.modules, name, made)
        exec(compile(text, f"{name} of CONTRIBUTING.md", "exec"), vars(made))  # noqa: S102
        return made

    return make


def test_the_method_is_planned(module):
    half_trained = module("sims_core.methods.half_trained", METHOD).HalfTrained
    try:
        experiment = Experiment(methods={"half_trained": {"kind": "half_trained", "omega": 2.0}})
        arm = Arm(
            method=experiment.template("half_trained"),
            loop=LoopKind.fully_synthetic,
            pollution_size=8,
        )
        plan = plan_loop(experiment, (arm,), generations=1, seed=0)
        stages = {stage.role: stage.request for stage in plan.arms[0].stages}
        weaker, drawn = stages["train weaker"], stages[roles.GENERATE]
        assert weaker.config["training"]["kimg"] == experiment.training.kimg / 2
        assert drawn.inputs["auxiliary"] == weaker.ref
        assert drawn.config["omega"] == 2.0
        assert isinstance(arm.method, half_trained)
    finally:
        METHODS.remove("half_trained")


def test_the_metric_is_the_first_term_of_fid(module, monkeypatch):
    monkeypatch.setattr(metric, "_REGISTERED", {})
    found = module("mean_shift", METRIC).METRIC
    register(found)
    assert metric.further_metrics()["mean_shift"] is found
    one, other = np.zeros((5, 2), np.float32), np.tile(np.float32([3, 4]), (7, 1))
    sets = (MeasuredSet({"features": each}) for each in (one, other))
    assert found.compute(*sets, found.options(), 0) == {"mean_shift": 25.0}


def test_the_network_is_trained_stored_and_read(module, tmp_path):
    module("plain_config", CONFIG)
    module("sims_core.nets.plain", NETWORK)
    try:
        config = ModelConfig.model_validate(
            {"net": {"kind": "plain", "image_size": 8, "channels": 1, "width": 8}}
        )
        net = build_net(config.net)
        initialise(net, torch.Generator().manual_seed(0))
        x, sigma = torch.ones(2, 1, 8, 8), torch.tensor([0.5, 1.0])
        skip = (0.25 / (sigma**2 + 0.25)).reshape(2, 1, 1, 1)
        assert torch.allclose(EDMDenoiser(net, 0.5)(x, sigma), skip * x)
        images, _ = load_digits_uint8(DigitsData(num_images=64))
        model = api.train(images, config, TrainingConfig(kimg=0.2, batch_size=32))
        api.save_model(model, tmp_path / "plain")
        again = api.load_model(tmp_path / "plain")
        assert torch.equal(again(x, sigma), model(x, sigma))
        assert not torch.allclose(again(x, sigma), skip * x)
    finally:
        NETS.remove("plain")
