"""The rows of the paper's Table 1: does SIMS improve the published base, at which omega and budget?

Each starts from a network pickle of NVIDIA's that you have fetched; `sims model import` reads it
and runs nothing in it. `sims run self-improvement/<row> --dry-run` says what is still missing and
the commands that bring it.

    sims model import edm-cifar10-32x32-uncond-vp.pkl --name edm-cifar10
    SIMS_DEVICE=cuda SIMS_COMPILE=inductor sims run self-improvement/edm-cifar10

Files and names: under https://nvlabs-fi-cdn.nvidia.com/, edm/pretrained/ and
edm2/posthoc-reconstructions/; FID in the paper / network evaluations [K]:

| row | file | base | SIMS |
|---|---|---|---|
| edm-cifar10 | edm-cifar10-32x32-uncond-vp.pkl | 1.97 / 35 | 1.33 / 70 |
| edm-ffhq64 | edm-ffhq-64x64-uncond-vp.pkl | 2.39 / 79 | 1.04 / 158 |
| edm2-imagenet64 | edm2-img64-s-1073741-0.075.pkl | 1.58 / 63 | "new record" (0.92, unconfirmed) |
| edm2-imagenet512 | edm2-img512-s-2147483-0.130.pkl | 2.56 / 63 | 1.73 / 126 |

On ImageNet-512 the base plainly fine-tuned on the same 1.5 M images gives 6.07 [K]: that is the
contrast that every report of this flow has.

What is whose. Heun steps 18, 40, 32, 32, noise 0.002 to 80, augmentation 12 % and 15 %, batch 512,
256, 2048: EDM's and EDM2's [K]. n_s: 100k on CIFAR-10 [K, secondary], 1.5 M on ImageNet-512 [K],
18k on FFHQ-64 is Neon's [P], 250k on ImageNet-64 ours [O]. The auxiliary's rate: 1e-4 and 4e-6 are
Neon's [P], 2.5e-4 of EDM2 ours [O]. Budgets: on CIFAR-10 up to a fifth of what the base has seen,
from "training costs about 20 % extra" [K, secondary]; on FFHQ-64 Neon's 1.5 Mi, half and twice that
[P]; on ImageNet ours [O]. The auxiliary's loss, noise levels and dropout are the base's own, from
its file. Omegas are ours [O]. Selection on 10k images of one range of seeds, finals on 50k of
another: Neon's protocol [P], on three disjoint sets of them as EDM does, which reports the best
[K]; the report names mean and best. EDM resamples augmented images by a wavelet filter, this
project bicubically [O]. ImageNet-512's latents are scaled by EDM2's own fixed numbers [K]; each
image has one draw from its posterior, EDM2 draws anew at every look [O].

Hours on one GPU are estimated, not measured: work / (50 TFLOP/s sustained, a sixth of an A100's
peak in bf16) [O]. One evaluation of the network costs 42.4 GFLOP on CIFAR-10, 83.7 on FFHQ-64,
201.6 on both ImageNets (counted by torch's flop counter on these configurations), an image in
training three of them. With 5 (3) omegas, 3 budgets and 3 finalists, at NFE a base's image:
S: n_s NFE; training: 3 x largest budget; selection: 10k (2 x 15 (9) + 4) NFE; finals:
3 x 50k (2 x 3 + 2) NFE.

| row | S | training | selection | finals | hours |
|---|---|---|---|---|---|
| edm-cifar10 | 0.8 | 28.3 | 2.8 | 9.9 | 42 |
| edm-ffhq64 | 0.7 | 4.2 | 12.5 | 44.1 | 62 |
| edm2-imagenet64 | 17.6 | 26.9 | 15.5 | 84.6 | 145 |
| edm2-imagenet512 | 105.8 | 67.2 | 15.5 | 84.6 | 273, and 12 to decode |

None of the four has been run to its end here; a run that was stopped goes on where it was.
"""

from flows.presets import Need, Preset
from sims_core.data.config import ImageData, ImportedImages, KnownImages
from sims_core.diffusion.config import SamplerConfig
from sims_core.evaluation.config import EvaluationConfig
from sims_core.methods.sims import Sims
from sims_core.nets.config import BaseConfig, EDM2Config, ModelConfig, SongUNetConfig
from sims_core.nets.preconditioning_config import EDM2Loss, EDMLoss, EDMPreconditioning
from sims_core.studies.experiment import Experiment
from sims_core.training.config import TrainingConfig

CDN = "https://nvlabs-fi-cdn.nvidia.com"
EDM = f"{CDN}/edm/pretrained"
EDM2 = f"{CDN}/edm2/posthoc-reconstructions"

CIFAR10 = ModelConfig(
    net=SongUNetConfig(
        image_size=32, channels=3, channel_mult=(2, 2, 2), dropout=0.13, augment_dim=9
    ),
    preconditioning=EDMPreconditioning(),
    loss=EDMLoss(),
)
FFHQ64 = ModelConfig(
    net=SongUNetConfig(image_size=64, channels=3, dropout=0.05, augment_dim=9),
    preconditioning=EDMPreconditioning(),
    loss=EDMLoss(),
)
IMAGENET64 = ModelConfig(
    net=EDM2Config(image_size=64, channels=3, num_classes=1000),
    loss=EDM2Loss(P_mean=-0.8, P_std=1.6),
)
IMAGENET512 = ModelConfig(
    net=EDM2Config(image_size=64, channels=4, num_classes=1000), loss=EDM2Loss()
)
"""What an imported file says of itself goes before these four."""

INCEPTION = EvaluationConfig(features="inception", num_images=50_000)


def published_model(name: str, url: str, size: str) -> Need:
    file = url.rpartition("/")[2]
    command = f"sims model import {file} --name {name}"
    return Need(model=name, command=command, source=f"{url}, {size}")


def experiment_from(
    base: str, data: ImageData, model: ModelConfig, sims: Sims, steps: int, augment: float = 0.0
) -> Experiment:
    sampler = SamplerConfig(num_steps=steps, precision="fp32" if augment else "bf16")
    return Experiment(
        data=data,
        base=BaseConfig(imported=base),
        model=model,
        training=TrainingConfig(batch_size=sims.batch_size, augment=augment, precision="bf16"),
        sims=sims,
        sampler=sampler,
        evaluation=INCEPTION,
    )


MEASURED = {
    **{"select_images": 10_000, "final_images": 50_000},
    **{"finalists": 3, "final_repeats": 3},
}
OMEGAS = [0.25, 0.5, 1.0, 1.5, 2.0]
FEW_OMEGAS = [0.5, 1.0, 1.5]

PRESETS = [
    Preset(
        flow="self-improvement",
        name="edm-cifar10",
        description="Table 1, CIFAR-10: does SIMS improve EDM-VP? (paper: FID 1.97 to 1.33)",
        hardware="1 GPU of 24 GB; `sims model import` of EDM's checkpoint first",
        expected_time="about 42 hours on one A100 (estimated, not measured)",
        parameters={
            **{"omegas": OMEGAS, "budgets": [10.0, 20.0, 40.0], "n_s": 100_000},
            **MEASURED,
        },
        needs=(
            published_model("edm-cifar10", f"{EDM}/edm-cifar10-32x32-uncond-vp.pkl", "0.22 GB"),
        ),
        experiment=experiment_from(
            base="edm-cifar10",
            data=KnownImages(source="cifar10"),
            model=CIFAR10,
            sims=Sims(n_s=100_000, budget_mimg=40, batch_size=512, learning_rate=1e-4),
            steps=18,
            augment=0.12,
        ),
    ),
    Preset(
        flow="self-improvement",
        name="edm-ffhq64",
        description="Table 1, FFHQ-64: does SIMS improve EDM-VP? (paper: FID 2.39 to 1.04)",
        hardware="1 GPU of 24 GB; `sims model import` of EDM's checkpoint and `sims data import` "
        "of FFHQ first",
        expected_time="about 62 hours on one A100 (estimated, not measured)",
        parameters={"omegas": OMEGAS, "budgets": [0.75, 1.5, 3.0], "n_s": 18_000, **MEASURED},
        needs=(
            published_model("edm-ffhq64", f"{EDM}/edm-ffhq-64x64-uncond-vp.pkl", "0.25 GB"),
            Need(
                data="ffhq64",
                command="sims data import FOLDER --name ffhq64 --size 64 --channels 3 "
                "--labels none",
                source="FFHQ's 70,000 aligned images, 90 GB at 1024 x 1024",
            ),
        ),
        experiment=experiment_from(
            base="edm-ffhq64",
            data=ImportedImages(name="ffhq64"),
            model=FFHQ64,
            sims=Sims(n_s=18_000, budget_mimg=3, batch_size=256, learning_rate=4e-6),
            steps=40,
            augment=0.15,
        ),
    ),
    Preset(
        flow="self-improvement",
        name="edm2-imagenet64",
        description="Table 1, ImageNet-64: does SIMS improve EDM2-S? (paper: FID 1.58 to a record)",
        hardware="1 GPU of 80 GB (SIMS_MICRO_BATCH_SIZE=256), 64 GB of memory; `sims model import` "
        "of EDM2-S and `sims data import` of ImageNet first",
        expected_time="about six days on one A100 (estimated, not measured)",
        parameters={
            **{"omegas": FEW_OMEGAS, "budgets": [2.0, 4.0, 8.0], "n_s": 250_000},
            **MEASURED,
        },
        needs=(
            published_model("edm2-imagenet64", f"{EDM2}/edm2-img64-s-1073741-0.075.pkl", "0.6 GB"),
            Need(
                data="imagenet64",
                command="sims data import TRAIN_FOLDER --name imagenet64 --size 64 --channels 3",
                source="ILSVRC 2012's training images, 138 GB",
            ),
        ),
        experiment=experiment_from(
            base="edm2-imagenet64",
            data=ImportedImages(name="imagenet64"),
            model=IMAGENET64,
            sims=Sims(n_s=250_000, budget_mimg=8, batch_size=2048, learning_rate=2.5e-4),
            steps=32,
        ),
    ),
    Preset(
        flow="self-improvement",
        name="edm2-imagenet512",
        description="Table 1, ImageNet-512: does SIMS improve EDM2-S? (paper: FID 2.56 to 1.73)",
        hardware="1 GPU of 80 GB (SIMS_MICRO_BATCH_SIZE=256), 128 GB of memory; `sims model "
        "import` of EDM2-S, `sims data import` of ImageNet and `sims data encode` first",
        expected_time="about twelve days on one A100 (estimated, not measured)",
        parameters={
            **{"omegas": FEW_OMEGAS, "budgets": [5.0, 10.0, 20.0], "n_s": 1_500_000},
            **MEASURED,
        },
        needs=(
            published_model(
                "edm2-imagenet512", f"{EDM2}/edm2-img512-s-2147483-0.130.pkl", "0.6 GB"
            ),
            Need(
                data="imagenet512",
                command="sims data import TRAIN_FOLDER --name imagenet512-images --size 512 "
                "--channels 3` and `sims data encode imagenet512-images --autoencoder VAE_FOLDER "
                "--scaling edm2 --name imagenet512",
                source="ILSVRC 2012's training images, 138 GB, 600 GB as PNG of 512 x 512, and "
                "stabilityai/sd-vae-ft-mse, 0.3 GB",
            ),
        ),
        experiment=experiment_from(
            base="edm2-imagenet512",
            data=ImportedImages(name="imagenet512"),
            model=IMAGENET512,
            sims=Sims(n_s=1_500_000, budget_mimg=20, batch_size=2048, learning_rate=2.5e-4),
            steps=32,
        ),
    ),
]
