"""Autoguidance's rows (arXiv 2406.02507) from EDM2's published networks: a small, early one guides.

    sims model import edm2-img64-s-1073741-0.045.pkl --name edm2-imagenet64-ema045
    sims model import edm2-img64-xs-0134217-0.110.pkl --name edm2-imagenet64-xs
    SIMS_DEVICE=cuda sims run sims-loop/autoguidance-imagenet64

Files: under https://nvlabs-fi-cdn.nvidia.com/edm2/posthoc-reconstructions/, each row those of
NVIDIA's presets edm2-img64-s-autog-fid and edm2-img512-s-autog-fid [K]; FID / evaluations [K]:

| row | base | guided by | guided |
|---|---|---|---|
| -imagenet64 | edm2-img64-s-1073741-0.045.pkl | edm2-img64-xs-0134217-0.110.pkl | 1.01 / 126 |
| -imagenet512 | edm2-img512-s-2147483-0.070.pkl | edm2-img512-xs-0134217-0.125.pkl | 1.34 / 126 |

What is whose. Networks, the lengths of their averages (the last number of a file's name), weights
1.70 and 2.10, which are 1 + omega here, guidance at every noise level, Heun steps 32, noise 0.002
to 80, FID of 50k images: the paper's and its code's [K]. They report the best of three sets of
images [K], here each seed is one [O]. The contrast `standard` is the same base unguided; its
average was chosen for being guided, so it is not the 1.58 and 2.56 of EDM2-S at its best [O].
Evaluations run in bfloat16, EDM2's in float16 [O]. Latents and their autoencoder, and the fine-tune
of `-p methods=standard,autoguidance,sims`: as in `edm_bases.py`.

Hours on one A100, estimated as in `edm_bases.py` (one evaluation of XS costs 89.9 GFLOP): 50k
images of the base and 50k guided ones are 3.5 and 5.1; 1.4 more to decode those of 512 x 512.
"""

from typing import Any

from flows.presets import Preset
from flows.presets.edm_bases import ON_IMAGENET64, ON_IMAGENET512
from flows.published_bases import (
    EDM2,
    EDM2_IMAGENET64,
    EDM2_IMAGENET512,
    PublishedBase,
    published_model,
)
from sims_core.methods.autoguidance import Autoguidance
from sims_core.methods.sims import Sims
from sims_core.nets.config import BaseConfig


def guided_preset(
    base: PublishedBase, average: str, gnet: str, omega: float, sims: Sims, **fields: Any
) -> Preset:
    """A base of another average than `base`, guided by the network of file `gnet`."""
    auxiliary, data = f"{base.name}-xs", base.name.removeprefix("edm2-")
    changed = {
        "name": f"{base.name}-ema{average.removeprefix('0.')}",
        "url": f"{base.url.rpartition('-')[0]}-{average}.pkl",
        "hardware": "1 GPU of 24 GB; `sims model import` of EDM2-S and EDM2-XS, and the data of "
        f"self-improvement/{base.name}, first",
    }
    return base.model_copy(update=changed).preset(
        flow="sims-loop",
        name=f"autoguidance-{data}",
        parameters={
            "generations": 1,
            "methods": ["standard", "autoguidance"],
            "omegas": [omega],
            "pollution_sizes": [10_000],
        },
        sims=sims,
        methods={"autoguidance": Autoguidance(auxiliary=BaseConfig(imported=auxiliary))},
        auxiliary=published_model(auxiliary, f"{EDM2}/{gnet}", "0.25 GB"),
        **fields,
    )


PRESETS = [
    guided_preset(
        EDM2_IMAGENET64,
        average="0.045",
        gnet="edm2-img64-xs-0134217-0.110.pkl",
        omega=0.7,
        sims=ON_IMAGENET64,
        description="Autoguidance of EDM2-S by EDM2-XS on ImageNet-64 (its paper: FID 1.01)",
        expected_time="about 9 hours on one A100 (estimated, not measured)",
    ),
    guided_preset(
        EDM2_IMAGENET512,
        average="0.070",
        gnet="edm2-img512-xs-0134217-0.125.pkl",
        omega=1.1,
        sims=ON_IMAGENET512,
        description="Autoguidance of EDM2-S by EDM2-XS on ImageNet-512 (its paper: FID 1.34)",
        expected_time="about 10 hours on one A100 (estimated, not measured)",
    ),
]
