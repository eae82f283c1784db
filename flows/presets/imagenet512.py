"""sims-loop/imagenet512: class-conditional training and SIMS on latents of ImageNet at 512 x 512.

    sims data import TRAIN_FOLDER --name imagenet512-images --size 512 --channels 3
    sims data encode imagenet512-images --autoencoder VAE_FOLDER --name imagenet512
    SIMS_COMPILE=inductor SIMS_PROCESSES=8 SIMS_MICRO_BATCH_SIZE=64 sims run sims-loop/imagenet512

Data: ILSVRC 2012's training folder, one sub-folder for each of its 1,000 classes; VAE_FOLDER holds
Stable Diffusion's autoencoder as diffusers saved it (`sd-vae-ft-mse` is the one of EDM2), 8 pixels
a latent. The images take about 600 GB as PNG, their latents 42 GB on disk, which the processes map
and share; the features of all images need 36 GB of memory once. All images are encoded once;
whatever is generated is decoded before it is evaluated, against the images themselves. Base,
auxiliary and generation are conditioned on the class; that of a generated image follows from its
seed, uniform over classes.

The network is imagenet64's on four channels, 266 M parameters (EDM2-S has 280 M and is another
architecture). Latents of mean 0 and deviation 0.5, P_mean -0.4, P_std 1.0, batch 2048, 2,147 Mi and
32 Heun steps are EDM2's [K]; learning rate, EMA half-life and dropout are imagenet64's [O]. EDM2
draws a latent anew each time that an image is seen, here it is drawn once [O]. n_s = 1.5 M is the
paper's [K]; budget, the auxiliary's rate and omega are ours [O].
The paper's figures are on EDM2-S, which this is not: 2.56 at 63 network evaluations, 1.73 with
SIMS, and 6.07 for the base fine-tuned on the same synthetic images [K]. This preset has not been
run to its end here.
"""

from flows.presets import Preset
from flows.presets.imagenet64 import NET
from sims_core.data.config import ImportedImages
from sims_core.diffusion.config import SamplerConfig
from sims_core.evaluation.config import EvaluationConfig
from sims_core.methods.sims import Sims
from sims_core.nets.config import ModelConfig
from sims_core.studies.experiment import Experiment
from sims_core.training.config import TrainingConfig

PRESETS = [
    Preset(
        flow="sims-loop",
        name="imagenet512",
        description="Class-conditional training and SIMS on latents of ImageNet at 512 x 512",
        hardware="8 GPUs of 80 GB (SIMS_PROCESSES=8), 96 GB of memory; `sims data import` of "
        "ImageNet and `sims data encode` first",
        expected_time="about six weeks on 8 A100 (estimated as imagenet64's, not measured)",
        parameters={"generations": 1, "omegas": [1.0], "pollution_sizes": [10_000]},
        experiment=Experiment(
            data=ImportedImages(name="imagenet512"),
            model=ModelConfig(net=NET.model_copy(update={"channels": 4})),
            training=TrainingConfig(
                kimg=2_147_000,
                batch_size=2048,
                learning_rate=1e-4,
                ramp_kimg=10_000,
                decay="constant",
                P_mean=-0.4,
                P_std=1.0,
                ema_halflife_kimg=50_000,
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
