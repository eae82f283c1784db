"""sims-loop/ffhq64: standard training and SIMS on faces at 64 x 64.

    sims data import FOLDER --name ffhq64 --size 64 --channels 3 --labels none
    SIMS_COMPILE=inductor SIMS_PROCESSES=8 sims run sims-loop/ffhq64

    sims data import FOLDER --name ffhq64-labelled --size 64 --channels 3 --labels FILE
    sims run distribution-shift/ffhq64

Data: FFHQ's 70,000 aligned images (a folder or zip of the 1024 x 1024 or 128 x 128 ones), centre
cropped and resized by the import. With a base of your own instead of a trained one:

    sims model import FOLDER --name my-ffhq
    sims run sims-loop/ffhq64 -p generations=1 -p base.imported=my-ffhq

The recipe follows EDM (arXiv 2206.00364): 59 M parameters on UNet2DModel where EDM's DDPM++ has
62 M; batch 256, learning rate 2e-4, 200 Mi, EMA half-life 0.5 Mi, dropout 0.05, 40 Heun steps [K].
EDM's geometric augmentation at 15 % [K], resampled by ours (see
sims_core/training/augmentation.py). An imported base that cannot be told of it is fine-tuned
without. n_s = 18k and the auxiliary's learning rate 4e-6 are Neon's [P]; budget and omega are ours
[O].
The paper's figure: FID 2.39 of EDM-VP at 79 network evaluations to 1.04 of SIMS at 158 [K]. The
faces have no labels, so features are Inception's: set SIMS_INCEPTION_WEIGHTS or let them be
fetched. This preset has not been run to its end here.
"""

from flows.presets import Preset
from sims_core.data.config import ImportedImages
from sims_core.diffusion.config import SamplerConfig
from sims_core.evaluation.config import ClassifierConfig, EvaluationConfig
from sims_core.methods.sims import Sims
from sims_core.nets.config import ModelConfig, UNetConfig
from sims_core.studies.experiment import Experiment
from sims_core.training.config import TrainingConfig

EXPERIMENT = Experiment(
    data=ImportedImages(name="ffhq64"),
    model=ModelConfig(
        net=UNetConfig(
            image_size=64,
            channels=3,
            block_out_channels=(128, 256, 256, 256),
            layers_per_block=4,
            attention_levels=(2,),
            attention_head_dim=None,
            norm_num_groups=32,
            dropout=0.05,
            augment_labels=True,
        )
    ),
    training=TrainingConfig(
        kimg=200_000,
        batch_size=256,
        learning_rate=2e-4,
        ramp_kimg=10_000,
        decay="constant",
        ema_halflife_kimg=500,
        augment=0.15,
        precision="bf16",
        grid_kimg=5_000,
    ),
    sims=Sims(n_s=18_000, budget_mimg=2, batch_size=256, learning_rate=4e-6),
    sampler=SamplerConfig(num_steps=40),
    evaluation=EvaluationConfig(features="inception", num_images=50_000),
)

PRESETS = [
    Preset(
        flow="distribution-shift",
        name="ffhq64",
        description="Moves FFHQ at 64 x 64 to other shares of two classes of your label file",
        hardware=(
            "8 GPUs of 32 GB (SIMS_PROCESSES=8); `sims data import` of FFHQ with --labels first"
        ),
        expected_time=(
            "nine days on 8 V100 (estimated, not measured: two trainings of four days, and two "
            "auxiliaries)"
        ),
        # Classes 0 and 1 of the label file; the share of class 1.
        parameters={
            "groups": {"one": [1], "zero": [0]},
            "targets": [0.5],
            "omegas": [1.0],
            "exponents": [1.0, 2.0],
            "select_images": 5_000,
            "final_images": 50_000,
            "seeds": [0],
        },
        experiment=EXPERIMENT.model_copy(
            update={
                "data": ImportedImages(name="ffhq64-labelled"),
                "evaluation": EvaluationConfig(
                    features="inception",
                    num_images=50_000,
                    classifier=ClassifierConfig(
                        channels=(32, 64, 128, 256), num_features=128, kimg=1_000
                    ),
                ),
            }
        ),
    ),
    Preset(
        flow="sims-loop",
        name="ffhq64",
        description="Standard training and SIMS on FFHQ at 64 x 64 with EDM's recipe",
        hardware="8 GPUs of 32 GB (SIMS_PROCESSES=8); `sims data import` of FFHQ first",
        expected_time="four days on 8 V100 (estimated from EDM's report, not measured)",
        parameters={"generations": 1, "omegas": [1.0], "pollution_sizes": [10_000]},
        experiment=EXPERIMENT,
    ),
    Preset(
        flow="pollution",
        name="ffhq64",
        description="Fig. 5: FFHQ at 64 x 64 with more and more polluting samples, EDM's recipe",
        hardware="8 GPUs of 32 GB (SIMS_PROCESSES=8); `sims data import` of FFHQ first",
        expected_time=(
            "four weeks on 8 V100 (estimated, not measured: six trainings of four days, and five "
            "auxiliaries)"
        ),
        # SIMS still improves below 15k, 20 % of the real images [K].
        parameters={"pollution_sizes": [5_000, 10_000, 15_000, 20_000, 30_000], "seeds": [0]},
        experiment=EXPERIMENT,
    ),
]
