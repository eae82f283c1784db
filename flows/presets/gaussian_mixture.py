"""distribution-shift/gaussian-mixture: two components in the plane, from 40 % to 55 % and beyond.

    sims run distribution-shift/gaussian-mixture

All of it is our own choice [O]; the components are told by Bayes' rule, so that shares are exact.
"""

from flows.presets import Preset
from sims_core.data.config import Mixture, MixtureData
from sims_core.diffusion.config import SamplerConfig
from sims_core.evaluation.config import PointEvaluationConfig
from sims_core.methods.sims import Sims
from sims_core.nets.config import MLPConfig, ModelConfig
from sims_core.studies.experiment import Experiment
from sims_core.training.config import TrainingConfig

PRESETS = [
    Preset(
        flow="distribution-shift",
        name="gaussian-mixture",
        description="Moves a mixture of two Gaussians in the plane to other shares",
        hardware="2 CPU cores, 2 GB of memory",
        expected_time="a few minutes (estimated)",
        parameters={
            "groups": {"right": [1], "left": [0]},
            "targets": [0.55, 0.7],
            "omegas": [1.0],
            "exponents": [1.0, 1.5, 2.0],
            "select_images": 2000,
            "final_images": 2000,
            "seeds": [0, 1, 2],
        },
        experiment=Experiment(
            data=MixtureData(
                mixture=Mixture(means=((-2.0, 0.0), (2.0, 0.0)), std=0.5, weights=(0.6, 0.4)),
                num_points=2000,
                replicates=8,
            ),
            model=ModelConfig(net=MLPConfig(hidden_features=64, hidden_layers=3), sigma_data=1.4),
            training=TrainingConfig(
                kimg=51.2, batch_size=64, learning_rate=2e-3, P_mean=-0.5, ema_halflife_kimg=1
            ),
            sims=Sims(n_s=4000, budget_mimg=0.0256, batch_size=64, learning_rate=5e-4),
            sampler=SamplerConfig(num_steps=18),
            point_evaluation=PointEvaluationConfig(num_points=2000, empirical_points=250),
        ),
    ),
]
