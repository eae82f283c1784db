"""sims-loop/mnist and sims-loop/fashion: the loop on 60,000 real images of 28 x 28, grey.

    sims run sims-loop/mnist
    sims run sims-loop/fashion

Data: MNIST and Fashion-MNIST, from the data folder (SIMS_DATA) or fetched; Fashion-MNIST also from
Debian's package dataset-fashion-mnist; see docs/data.md. The time is estimated from what a CPU core
does with this network (140 images a second in training, 350 evaluations a second in sampling), not
from a whole run. Network, budgets and sizes are our own choice (the paper has no such experiment).
The figures are Frechet distances in the features of a small classifier of the same images.
"""

from typing import Literal

from flows.presets import Preset
from flows.presets.digits import ODD_EVEN
from sims_core.data.config import KnownImages
from sims_core.diffusion.config import SamplerConfig
from sims_core.evaluation.config import ClassifierConfig, EvaluationConfig
from sims_core.methods.sims import Sims
from sims_core.nets.config import ModelConfig, UNetConfig
from sims_core.studies.experiment import Experiment
from sims_core.training.config import TrainingConfig


def experiment(source: Literal["mnist", "fashion"]) -> Experiment:
    return Experiment(
        data=KnownImages(source=source),
        model=ModelConfig(
            net=UNetConfig(image_size=28, channels=1, block_out_channels=(16, 32, 64))
        ),
        training=TrainingConfig(kimg=100, batch_size=128, learning_rate=1e-3, ema_halflife_kimg=2),
        sims=Sims(n_s=4000, budget_mimg=0.0128, batch_size=128, learning_rate=1e-4),
        sampler=SamplerConfig(num_steps=12),
        evaluation=EvaluationConfig(num_images=4000, classifier=ClassifierConfig(kimg=120)),
    )


def _preset(source: Literal["mnist", "fashion"], title: str) -> Preset:
    return Preset(
        flow="sims-loop",
        name=source,
        description=f"Standard training and SIMS in a self-consuming loop on {title}",
        hardware="2 CPU cores, 4 GB of memory; the data folder, or internet",
        expected_time="about an hour",
        parameters={"generations": 2, "omegas": [1.0], "pollution_sizes": [4000]},
        experiment=experiment(source),
    )


SHIFTED = experiment("mnist").model_copy(
    update={"sims": Sims(n_s=4000, budget_mimg=0.0128, batch_size=128, learning_rate=5e-4)}
)

PRESETS = [
    Preset(
        flow="distribution-shift",
        name="mnist",
        description="Moves MNIST's digits to other shares of odd ones, beside plain baselines",
        hardware="2 CPU cores, 4 GB of memory; the data folder, or internet",
        expected_time="half a day (estimated: three trainings of sims-loop/mnist's size)",
        parameters={
            "groups": ODD_EVEN,
            "targets": [0.6, 0.7],
            "omegas": [1.0],
            "exponents": [2.0, 3.0, 4.0],
            "select_images": 2000,
            "final_images": 4000,
            "seeds": [0],
        },
        experiment=SHIFTED,
    ),
    _preset("mnist", "MNIST"),
    _preset("fashion", "Fashion-MNIST"),
    Preset(
        flow="pollution",
        name="mnist",
        description="MNIST with more and more polluting samples of a first model",
        hardware="2 CPU cores, 4 GB of memory; the data folder, or internet",
        expected_time="half a day (estimated: five models of sims-loop/mnist's size)",
        parameters={"pollution_sizes": [6_000, 18_000, 36_000, 60_000], "seeds": [0]},
        experiment=experiment("mnist"),
    ),
]
