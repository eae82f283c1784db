"""sims-loop/cifar10-smoke: every stage on real CIFAR-10 images, on two CPU cores in minutes.

    sims run sims-loop/cifar10-smoke

Data: the first 512 training images, from the data folder (SIMS_DATA) or fetched; see docs/data.md.
It shows that the way from the files to the report works. The network and the budgets are far too
small for its images to be worth looking at, and its figures, Frechet distances in the features of a
small classifier of the same 512 images, are no FID of the literature. The stages took 130 s of
processor time in all.
"""

from flows.presets import Preset
from sims_core.data.config import KnownImages
from sims_core.diffusion.config import SamplerConfig
from sims_core.evaluation.config import ClassifierConfig, EvaluationConfig
from sims_core.methods.sims import Sims
from sims_core.nets.config import ModelConfig, UNetConfig
from sims_core.studies.experiment import Experiment
from sims_core.training.config import TrainingConfig

PRESETS = [
    Preset(
        flow="sims-loop",
        name="cifar10-smoke",
        description="Every stage of the loop on 512 real CIFAR-10 images, too small to learn much",
        hardware="2 CPU cores, 2 GB of memory; the data folder, or internet",
        expected_time="2 minutes on two cores (measured)",
        parameters={"generations": 2, "omegas": [1.0], "pollution_sizes": [256]},
        experiment=Experiment(
            data=KnownImages(source="cifar10", num_images=512),
            model=ModelConfig(
                net=UNetConfig(
                    image_size=32, channels=3, block_out_channels=(8, 16, 32), norm_num_groups=8
                )
            ),
            training=TrainingConfig(kimg=3, batch_size=64, learning_rate=2e-3),
            sims=Sims(n_s=256, budget_mimg=0.0005, batch_size=64, learning_rate=1e-4),
            sampler=SamplerConfig(num_steps=6),
            evaluation=EvaluationConfig(
                num_images=256,
                classifier=ClassifierConfig(kimg=5),
                kid_subset_size=100,
                num_preview=16,
            ),
        ),
    )
]
