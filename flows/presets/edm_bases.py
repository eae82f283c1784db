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

Memory on the ImageNets. Of the GPU: weights, gradients, Adam's two moments and the average of 280 M
parameters in float32 are 5.6 GB, the rest is the micro-batch's. Of the host: training sets are
mapped from the disk (S of 250k images 3 GB, of 1.5 M latents 49 GB) and need none; the features of
all 1.28 M real images, 2,048 numbers each, are 10.5 GB in float32, and 21 GB in float64 while their
covariance is made: 32 GB once, with the process 36 GB. Precision and recall are against a random
50,000 of them (`evaluation.prc_real_images`), as their paper has both sets [K]: all would take
2 x 2,048 x (1.28 M)^2 = 6.7 PFLOP of the processor for each set of images. FID and KID are against
all. With `evaluation.reference` these features are not needed (FID only): 16 GB do.

None of the four has been run to its end here; a run that was stopped goes on where it was.
"""

from flows.published_bases import EDM2_IMAGENET64, EDM2_IMAGENET512, EDM_CIFAR10, EDM_FFHQ64
from sims_core.methods.sims import Sims

MEASURED = {
    **{"select_images": 10_000, "final_images": 50_000},
    **{"finalists": 3, "final_repeats": 3},
}
OMEGAS = [0.25, 0.5, 1.0, 1.5, 2.0]
FEW_OMEGAS = [0.5, 1.0, 1.5]

ON_IMAGENET64 = Sims(n_s=250_000, budget_mimg=8, batch_size=2048, learning_rate=2.5e-4)
ON_IMAGENET512 = Sims(n_s=1_500_000, budget_mimg=20, batch_size=2048, learning_rate=2.5e-4)

PRESETS = [
    EDM_CIFAR10.preset(
        flow="self-improvement",
        name="edm-cifar10",
        description="Table 1, CIFAR-10: does SIMS improve EDM-VP? (paper: FID 1.97 to 1.33)",
        expected_time="about 42 hours on one A100 (estimated, not measured)",
        parameters={
            **{"omegas": OMEGAS, "budgets": [10.0, 20.0, 40.0], "n_s": 100_000},
            **MEASURED,
        },
        sims=Sims(n_s=100_000, budget_mimg=40, batch_size=512, learning_rate=1e-4),
    ),
    EDM_FFHQ64.preset(
        flow="self-improvement",
        name="edm-ffhq64",
        description="Table 1, FFHQ-64: does SIMS improve EDM-VP? (paper: FID 2.39 to 1.04)",
        expected_time="about 62 hours on one A100 (estimated, not measured)",
        parameters={"omegas": OMEGAS, "budgets": [0.75, 1.5, 3.0], "n_s": 18_000, **MEASURED},
        sims=Sims(n_s=18_000, budget_mimg=3, batch_size=256, learning_rate=4e-6),
    ),
    EDM2_IMAGENET64.preset(
        flow="self-improvement",
        name="edm2-imagenet64",
        description="Table 1, ImageNet-64: does SIMS improve EDM2-S? (paper: FID 1.58 to a record)",
        expected_time="about six days on one A100 (estimated, not measured)",
        parameters={
            **{"omegas": FEW_OMEGAS, "budgets": [2.0, 4.0, 8.0], "n_s": 250_000},
            **MEASURED,
        },
        sims=ON_IMAGENET64,
    ),
    EDM2_IMAGENET512.preset(
        flow="self-improvement",
        name="edm2-imagenet512",
        description="Table 1, ImageNet-512: does SIMS improve EDM2-S? (paper: FID 2.56 to 1.73)",
        expected_time="about twelve days on one A100 (estimated, not measured)",
        parameters={
            **{"omegas": FEW_OMEGAS, "budgets": [5.0, 10.0, 20.0], "n_s": 1_500_000},
            **MEASURED,
        },
        sims=ON_IMAGENET512,
    ),
]
