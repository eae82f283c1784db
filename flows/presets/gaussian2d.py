"""sims-loop/gaussian2d and gaussian2d-quick: the paper's Fig. 4, a Gaussian in two dimensions.

    sims run sims-loop/gaussian2d-quick

Known of the paper: a synthetic augmentation loop on a two-dimensional Gaussian, 100 generations,
the expected Wasserstein distance over repetitions, sizes of |D_s| around 125 and 250. Everything
else here is our own choice [O] or a proxy [P], never the paper's: N(0, [[2, 1], [1, 2]]) [P],
|D_r| = 500, an MLP of 3 x 32, training and fine-tuning lengths, n_s, sampler, replicates [O].
docs/gaussian2d.md says how omega and the budget were searched for, on other seeds.

What drives the autophagy here: A is training *and* sampling, and on EDM's grid (sigma 80 to 0.002,
rho 7) 12 Heun steps widen any Gaussian of this size by about 20 % of its variance, generation after
generation. With an exact sampler the same loop shows next to no autophagy and guidance next to no
gain: SIMS removes a model's own bias, not the sampling error of D_r. See docs/gaussian2d.md.
"""

from flows.presets import Preset
from sims_core.data.config import GaussianData
from sims_core.diffusion.config import SamplerConfig
from sims_core.evaluation.config import PointEvaluationConfig
from sims_core.methods.sims import Sims
from sims_core.nets.config import MLPConfig, ModelConfig
from sims_core.studies.experiment import Experiment
from sims_core.training.config import TrainingConfig

COVARIANCE = ((2.0, 1.0), (1.0, 2.0))


def experiment(replicates: int, evaluation: PointEvaluationConfig) -> Experiment:
    """One recipe for both scales, so that what is found at one holds at the other."""
    return Experiment(
        data=GaussianData(covariance=COVARIANCE, num_points=500, replicates=replicates),
        model=ModelConfig(net=MLPConfig(hidden_features=32, hidden_layers=3), sigma_data=1.4),
        training=TrainingConfig(
            kimg=25.6, batch_size=64, learning_rate=2e-3, P_mean=-0.5, ema_halflife_kimg=0.512
        ),
        sims=Sims(n_s=2000, budget_mimg=0.0032, batch_size=64, learning_rate=2e-4),
        sampler=SamplerConfig(num_steps=12),
        point_evaluation=evaluation,
    )


PRESETS = [
    Preset(
        flow="pollution",
        name="gaussian2d",
        description="Pollution of points of a two-dimensional Gaussian by samples of a first model",
        hardware="2 CPU cores, 2 GB of memory",
        expected_time="a few minutes (estimated)",
        parameters={
            "pollution_sizes": [125, 250, 500, 1000],
            "omegas": [1.0, 3.0],
            "seeds": [0, 1, 2],
        },
        experiment=experiment(24, PointEvaluationConfig(num_points=2000, empirical_points=200)),
    ),
    Preset(
        flow="sims-loop",
        name="gaussian2d",
        description="Fig. 4: long loops of many arms on a two-dimensional Gaussian",
        hardware="2 CPU cores, 4 GB of memory and 20 GB of disk",
        expected_time="2 hours (estimated)",
        parameters={
            "generations": 100,
            "omegas": [0.0, 0.5, 1.0, 2.0, 3.0, 5.0],
            "pollution_sizes": [62, 125, 250, 500],
            "scan_omegas": [0.0, 0.5, 1.0, 2.0, 3.0, 5.0],
            "scan_budgets": [0.0008, 0.0032, 0.0064, 0.0128],
        },
        experiment=experiment(16, PointEvaluationConfig()),
    ),
    Preset(
        flow="sims-loop",
        name="gaussian2d-quick",
        description="Fig. 4 in small: fewer arms and generations on a two-dimensional Gaussian",
        hardware="2 CPU cores, 2 GB of memory",
        expected_time="5 minutes",
        parameters={
            "generations": 30,
            "omegas": [0.0, 1.0, 3.0],
            "pollution_sizes": [125, 500],
            "scan_omegas": [0.0, 1.0, 2.0, 3.0, 5.0],
            "scan_budgets": [0.0008, 0.0032, 0.0064, 0.0128],
        },
        experiment=experiment(24, PointEvaluationConfig(num_points=2000, empirical_points=200)),
    ),
]
