"""sims-loop/imagenet64: class-conditional training and SIMS on ImageNet at 64 x 64.

    sims data import TRAIN_FOLDER --name imagenet64 --size 64 --channels 3
    SIMS_COMPILE=inductor SIMS_PROCESSES=8 SIMS_MICRO_BATCH_SIZE=128 sims run sims-loop/imagenet64

Data: ILSVRC 2012's training folder, one sub-folder for each of its 1,000 classes (they become the
labels), centre cropped and resized by the import. They are decoded once into 16 GB on disk, which
the processes map and share; the features of all of them need 36 GB of memory once. Base, auxiliary
and generation are conditioned on the class; that of a generated image follows from its seed,
uniform over classes. With a base of your own see sims-loop/ffhq64.

The network is ADM's shape on UNet2DModel, 266 M parameters (EDM's has 296 M, EDM2-S 280 M). Batch
4096, learning rate 1e-4, EMA half-life 50 Mi and dropout 0.1 are EDM's for ADM [K]; 32 Heun steps
are EDM2's [K]. EDM trained 2,500 Mi; so does this preset. n_s, budget, the auxiliary's rate and
omega are ours [O].
The paper's figure is on EDM2-S, which this is not: 1.58 at 63 network evaluations to "a new record"
(0.92, unconfirmed) [K]. This preset has not been run to its end here.
"""

from flows.presets import Preset
from sims_core.data.config import ImportedImages
from sims_core.diffusion.config import SamplerConfig
from sims_core.evaluation.config import EvaluationConfig
from sims_core.methods.sims import Sims
from sims_core.nets.config import ModelConfig, UNetConfig
from sims_core.studies.experiment import Experiment
from sims_core.training.config import TrainingConfig

NET = UNetConfig(
    image_size=64,
    channels=3,
    block_out_channels=(192, 384, 576, 768),
    layers_per_block=3,
    attention_levels=(1, 2, 3),
    attention_head_dim=64,
    norm_num_groups=32,
    num_classes=1000,
    dropout=0.1,
)

PRESETS = [
    Preset(
        flow="sims-loop",
        name="imagenet64",
        description="Class-conditional training and SIMS on ImageNet at 64 x 64",
        hardware="8 GPUs of 80 GB (SIMS_PROCESSES=8); `sims data import` of ImageNet first",
        expected_time="two months on 8 A100 (estimated from EDM's report, not measured)",
        parameters={"generations": 1, "omegas": [1.0], "pollution_sizes": [10_000]},
        experiment=Experiment(
            data=ImportedImages(name="imagenet64"),
            model=ModelConfig(net=NET),
            training=TrainingConfig(
                kimg=2_500_000,
                batch_size=4096,
                learning_rate=1e-4,
                ramp_kimg=10_000,
                decay="constant",
                ema_halflife_kimg=50_000,
                x_flip=True,
                precision="bf16",
                grid_kimg=50_000,
            ),
            sims=Sims(n_s=1_500_000, budget_mimg=50, batch_size=2048, learning_rate=1e-5),
            sampler=SamplerConfig(num_steps=32, precision="bf16"),
            evaluation=EvaluationConfig(
                features="inception", num_images=50_000, prc_real_images=50_000
            ),
        ),
    )
]
