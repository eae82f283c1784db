"""What NVIDIA has published of EDM and EDM2 and presets of several papers start from.

Files lie under https://nvlabs-fi-cdn.nvidia.com/, edm/pretrained/ and edm2/posthoc-reconstructions/
[K]. `sims model import` reads one and runs nothing in it.
"""

from __future__ import annotations

from typing import Any

from flows.presets import Need, Preset
from sims_core.common.frozen import Frozen
from sims_core.data.config import ImageData, ImportedImages, KnownImages
from sims_core.diffusion.config import SamplerConfig
from sims_core.evaluation.config import EvaluationConfig
from sims_core.methods.base import MethodConfig
from sims_core.methods.sims import Sims
from sims_core.nets.config import BaseConfig, EDM2Config, ModelConfig, SongUNetConfig
from sims_core.nets.preconditioning_config import EDM2Loss, EDMLoss, EDMPreconditioning
from sims_core.studies.experiment import Experiment
from sims_core.training.config import TrainingConfig

CDN = "https://nvlabs-fi-cdn.nvidia.com"
EDM = f"{CDN}/edm/pretrained"
EDM2 = f"{CDN}/edm2/posthoc-reconstructions"

INCEPTION = EvaluationConfig(features="inception", num_images=50_000)
ON_IMAGENET = EvaluationConfig(features="inception", num_images=50_000, prc_real_images=50_000)
"""Precision and recall of 50,000 generated against 50,000 real images, as their paper has them [K];
against all 1.28 million they take hours for each set of images."""


def published_model(name: str, url: str, size: str) -> Need:
    """A network pickle under its name in the store."""
    commands = (f"curl -O {url}", f"sims model import {url.rpartition('/')[2]} --name {name}")
    return Need(model=name, commands=commands, source=size)


class PublishedBase(Frozen):
    """A network, the data that it was trained on, and how it was trained and is sampled."""

    name: str
    """Of the model in the store."""
    url: str
    size: str
    data: ImageData
    model: ModelConfig
    """What the imported file says of itself goes before it."""
    steps: int
    """Of Heun's method: twice as many evaluations less one."""
    augment: float = 0.0
    data_need: Need | None = None
    evaluation: EvaluationConfig = INCEPTION
    hardware: str

    def preset(
        self,
        sims: Sims,
        methods: dict[str, MethodConfig] | None = None,
        auxiliary: Need | None = None,
        **fields: Any,
    ) -> Preset:
        """A preset that starts from it.

        Args:
            sims: its fine-tune; the base's batch is of that size as well.
            methods: settings of other methods.
            auxiliary: a model that one of them is guided by.
            fields: the preset's other ones.
        """
        precision = "fp32" if self.augment else "bf16"
        needs = (published_model(self.name, self.url, self.size), auxiliary, self.data_need)
        experiment = Experiment(
            data=self.data,
            base=BaseConfig(imported=self.name),
            model=self.model,
            training=TrainingConfig(
                batch_size=sims.batch_size, augment=self.augment, precision="bf16"
            ),
            sims=sims,
            methods=methods or {},
            sampler=SamplerConfig(num_steps=self.steps, precision=precision),
            evaluation=self.evaluation,
        )
        told = {"hardware": self.hardware, **fields}
        return Preset(
            needs=tuple(need for need in needs if need is not None), experiment=experiment, **told
        )


EDM_CIFAR10 = PublishedBase(
    name="edm-cifar10",
    url=f"{EDM}/edm-cifar10-32x32-uncond-vp.pkl",
    size="0.22 GB",
    data=KnownImages(source="cifar10"),
    model=ModelConfig(
        net=SongUNetConfig(
            image_size=32, channels=3, channel_mult=(2, 2, 2), dropout=0.13, augment_dim=9
        ),
        preconditioning=EDMPreconditioning(),
        loss=EDMLoss(),
    ),
    steps=18,
    augment=0.12,
    hardware="1 GPU of 24 GB; `sims model import` of EDM's checkpoint first",
)
EDM_CIFAR10_CONDITIONAL = EDM_CIFAR10.model_copy(
    update={
        "name": "edm-cifar10-cond",
        "url": f"{EDM}/edm-cifar10-32x32-cond-vp.pkl",
        "model": EDM_CIFAR10.model.model_copy(
            update={"net": EDM_CIFAR10.model.net.model_copy(update={"num_classes": 10})}
        ),
    }
)
EDM_FFHQ64 = PublishedBase(
    name="edm-ffhq64",
    url=f"{EDM}/edm-ffhq-64x64-uncond-vp.pkl",
    size="0.25 GB",
    data=ImportedImages(name="ffhq64"),
    model=ModelConfig(
        net=SongUNetConfig(image_size=64, channels=3, dropout=0.05, augment_dim=9),
        preconditioning=EDMPreconditioning(),
        loss=EDMLoss(),
    ),
    steps=40,
    augment=0.15,
    data_need=Need(
        data="ffhq64",
        commands=("sims data import FOLDER --name ffhq64 --size 64 --channels 3 --labels none",),
        source="FFHQ's 70,000 aligned images, 90 GB at 1024 x 1024",
    ),
    hardware="1 GPU of 24 GB; `sims model import` of EDM's checkpoint and `sims data import` of "
    "FFHQ first",
)
EDM2_IMAGENET64 = PublishedBase(
    name="edm2-imagenet64",
    url=f"{EDM2}/edm2-img64-s-1073741-0.075.pkl",
    size="0.6 GB",
    data=ImportedImages(name="imagenet64"),
    model=ModelConfig(
        net=EDM2Config(image_size=64, channels=3, num_classes=1000),
        loss=EDM2Loss(P_mean=-0.8, P_std=1.6),
    ),
    steps=32,
    evaluation=ON_IMAGENET,
    data_need=Need(
        data="imagenet64",
        commands=("sims data import TRAIN_FOLDER --name imagenet64 --size 64 --channels 3",),
        source="ILSVRC 2012's training images, 138 GB",
    ),
    hardware="1 GPU of 80 GB (SIMS_MICRO_BATCH_SIZE=256), 64 GB of memory; `sims model import` "
    "of EDM2-S and `sims data import` of ImageNet first",
)
EDM2_IMAGENET512 = PublishedBase(
    name="edm2-imagenet512",
    url=f"{EDM2}/edm2-img512-s-2147483-0.130.pkl",
    size="0.6 GB",
    data=ImportedImages(name="imagenet512"),
    model=ModelConfig(net=EDM2Config(image_size=64, channels=4, num_classes=1000), loss=EDM2Loss()),
    steps=32,
    evaluation=ON_IMAGENET,
    data_need=Need(
        data="imagenet512",
        commands=(
            "sims data import TRAIN_FOLDER --name imagenet512-images --size 512 --channels 3",
            "hf download stabilityai/sd-vae-ft-mse config.json diffusion_pytorch_model.safetensors "
            "--local-dir VAE_FOLDER",
            "sims data encode imagenet512-images --autoencoder VAE_FOLDER --scaling edm2 --name "
            "imagenet512",
        ),
        source="ILSVRC 2012's training images, 138 GB, 600 GB as PNG of 512 x 512, and "
        "stabilityai/sd-vae-ft-mse, 0.3 GB",
    ),
    hardware="1 GPU of 80 GB (SIMS_MICRO_BATCH_SIZE=256), 64 GB of memory; `sims model import` "
    "of EDM2-S, `sims data import` of ImageNet and `sims data encode` first",
)
