"""Neon's rows (arXiv 2510.03597) from the same published bases: its merge of weights at several w.

    sims model import edm-cifar10-32x32-cond-vp.pkl --name edm-cifar10-cond
    SIMS_DEVICE=cuda SIMS_COMPILE=inductor sims run sims-loop/neon-cifar10

| row | file | base | Neon |
|---|---|---|---|
| neon-cifar10 | edm-cifar10-32x32-cond-vp.pkl | 1.79 / 35 | 1.38 / 35 |
| neon-ffhq64 | edm-ffhq-64x64-uncond-vp.pkl | 2.39 / 79 | 1.12 / 79 |

Files: under https://nvlabs-fi-cdn.nvidia.com/edm/pretrained/; FID / network evaluations [K].

What is whose. n_s 6k and 18k, Heun steps 18 and 40, w of 0.25 to 2 and 1 to 3, the fine-tunes'
batch of 256 on FFHQ, B = 1.5 Mi at w = 2 on FFHQ, augmentation 15 % there: Neon's [K]. B = 3.5 Mi
on CIFAR-10 is its "about 1.75 % extra compute" of 200 Mi [P]; batch 512 and augmentation 12 % there
EDM's [P]. Learning rates 1e-4 and 4e-6 are Neon's nominal ones [K], which its ramp of 10 Mi never
reaches; here the rate is constant [O], so w and B may want to be smaller. The average's half-life
is a tenth of B [O], Neon's 0.5 Mi. The paper looks for w on 10k images and reports 50k of other
seeds; here every w is measured on 50k [O]: the best of them is chosen on the seeds that it is
reported on.

Hours on one A100, estimated as in `edm_bases.py`: S, training and 50k images of each of the nine
(four) arms are 0.1, 2.5 and 3.7 on CIFAR-10, 0.7, 2.1 and 7.3 on FFHQ.
"""

from flows.published_bases import EDM_CIFAR10_CONDITIONAL, EDM_FFHQ64
from sims_core.methods.sims import Sims

PARAMETERS = {"generations": 1, "methods": ["standard", "neon"], "pollution_sizes": [10_000]}

PRESETS = [
    EDM_CIFAR10_CONDITIONAL.preset(
        flow="sims-loop",
        name="neon-cifar10",
        description="Neon on CIFAR-10 from EDM's class-conditional VP base (Neon's paper: 1.38)",
        expected_time="about 6 hours on one A100 (estimated, not measured)",
        parameters={**PARAMETERS, "ws": [0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0]},
        sims=Sims(n_s=6_000, budget_mimg=3.5, batch_size=512, learning_rate=1e-4),
    ),
    EDM_FFHQ64.preset(
        flow="sims-loop",
        name="neon-ffhq64",
        description="Neon on FFHQ-64 from EDM's VP base (Neon's paper: FID 2.39 to 1.12)",
        expected_time="about 10 hours on one A100 (estimated, not measured)",
        parameters={**PARAMETERS, "ws": [1.0, 2.0, 3.0]},
        sims=Sims(n_s=18_000, budget_mimg=1.5, batch_size=256, learning_rate=4e-6),
    ),
]
