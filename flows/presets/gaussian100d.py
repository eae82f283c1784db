"""sims-loop/gaussian100d-fresh: the MAD paper's fresh-data loop on a Gaussian in 100 dimensions.

    sims run sims-loop/gaussian100d-fresh -p data.num_points=1000
    sims run sims-loop/gaussian100d-fresh -p model.net.sampling_bias=0.8

Known (arXiv 2307.01850): d = 100, n_r = 100 new real points and n_s = 900 synthetic ones in each
generation, n_ini (`data.num_points`) 100 or 1000, sampling bias lambda 1 or 0.8; where the loop
settles does not depend on n_ini. Each model is the maximum-likelihood Gaussian, in closed form. The
true covariance (identity), generations and replicates are our own choice [O].
"""

from flows.presets import Preset
from sims_core.data.config import GaussianData
from sims_core.evaluation.config import PointEvaluationConfig
from sims_core.nets.config import ExactGaussianConfig, ModelConfig
from sims_core.studies.experiment import Experiment
from sims_core.studies.loop import LoopKind

PRESETS = [
    Preset(
        flow="sims-loop",
        name="gaussian100d-fresh",
        description="The MAD paper's fresh-data loop: exact Gaussian models in 100 dimensions",
        hardware="2 CPU cores, 2 GB of memory and 1 GB of disk",
        expected_time="1 minute",
        parameters={
            "generations": 30,
            "methods": ["standard"],
            "omegas": [0.0],
            "loop": LoopKind.fresh_data,
            "pollution_sizes": [900],
        },
        experiment=Experiment(
            data=GaussianData(mean=(0.0,) * 100, num_points=100, fresh_points=100, replicates=16),
            model=ModelConfig(net=ExactGaussianConfig()),
            point_evaluation=PointEvaluationConfig(num_points=1000, empirical_points=100),
        ),
    )
]
