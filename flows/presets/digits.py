"""Real 8x8 handwritten digits on a laptop: a whole self-consuming loop, and self-improvement.

    sims run sims-loop/digits-quick     # `make run`
    sims run sims-loop/digits
    sims run self-improvement/digits
    sims run distribution-shift/digits

Two CPU cores, no download. The figures are Frechet distances in the features of a small classifier
of the same digits; they are not comparable with Inception's FID. Sizes, network and budgets are our
own choice (the paper has no such experiment).
"""

from flows.presets import Preset
from sims_core.data.config import DigitsData
from sims_core.diffusion.config import SamplerConfig
from sims_core.evaluation.config import EvaluationConfig
from sims_core.methods.autoguidance import Autoguidance
from sims_core.methods.sims import Sims
from sims_core.nets.config import ModelConfig, UNetConfig
from sims_core.studies.experiment import Experiment
from sims_core.training.config import TrainingConfig

EXPERIMENT = Experiment(
    data=DigitsData(),
    model=ModelConfig(net=UNetConfig(), sigma_data=0.75),
    training=TrainingConfig(
        kimg=12, batch_size=64, learning_rate=1e-3, P_mean=-1.0, ema_halflife_kimg=0.5
    ),
    methods={"autoguidance": Autoguidance(kimg=4)},
    sims=Sims(n_s=4000, budget_mimg=0.0128, batch_size=128, learning_rate=1e-4),
    sampler=SamplerConfig(num_steps=12),
    evaluation=EvaluationConfig(num_images=1797),
)

QUICK = EXPERIMENT.model_copy(
    update={
        "training": EXPERIMENT.training.model_copy(update={"kimg": 8.0}),
        "sims": Sims(n_s=1500, budget_mimg=0.0064, batch_size=128, learning_rate=1e-4),
        "sampler": SamplerConfig(num_steps=8),
        "evaluation": EvaluationConfig(num_images=900),
    }
)
"""A first look: a base trained for less long, of which there is more left to gain, sampled in fewer
steps, and half as many images measured. Chosen on seed 11 (t = 1: FID 18.71 and 14.04)."""

ODD_EVEN = {"odd": [1, 3, 5, 7, 9], "even": [0, 2, 4, 6, 8]}

SHIFTED = EXPERIMENT.model_copy(
    update={"sims": Sims(n_s=4000, budget_mimg=0.0128, batch_size=128, learning_rate=5e-4)}
)
"""The auxiliary must learn another mix, which takes it longer than learning its own samples."""

PRESETS = [
    Preset(
        flow="distribution-shift",
        name="digits",
        description=(
            "Moves handwritten digits to other shares of odd ones, beside rejection sampling and "
            "training on re-weighted real digits"
        ),
        hardware="2 CPU cores, 2 GB of memory",
        expected_time="an hour of one core (25 minutes for the first target: measured)",
        parameters={
            "groups": ODD_EVEN,
            "targets": [0.55, 0.6, 0.7],
            "omegas": [1.0],
            "exponents": [2.0, 3.0, 4.0],
            "final_images": 1797,
            "seeds": [0, 1, 2],
        },
        experiment=SHIFTED,
    ),
    Preset(
        flow="pollution",
        name="digits",
        description=(
            "Real handwritten digits with more and more polluting samples of a first model, by "
            "standard training and SIMS"
        ),
        hardware="2 CPU cores, 2 GB of memory",
        expected_time="half an hour of one core (measured)",
        parameters={"pollution_sizes": [450, 900, 1797], "seeds": [0, 1, 2]},
        experiment=EXPERIMENT,
    ),
    Preset(
        flow="self-improvement",
        name="digits",
        description=(
            "At which omega and budget SIMS improves a model of 1,797 real handwritten digits"
        ),
        hardware="2 CPU cores, 2 GB of memory",
        expected_time="4 minutes on two cores (measured)",
        experiment=EXPERIMENT,
    ),
    Preset(
        flow="sims-loop",
        name="digits",
        description=(
            "Standard training and SIMS in a self-consuming loop on 1,797 real handwritten digits"
        ),
        hardware="2 CPU cores, 2 GB of memory",
        expected_time="5 to 10 minutes on two cores",
        parameters={"generations": 3, "omegas": [1.0], "pollution_sizes": [1797]},
        experiment=EXPERIMENT,
    ),
    Preset(
        flow="sims-loop",
        name="digits-quick",
        description=(
            "A first look in minutes: standard training and SIMS in a self-consuming loop on real "
            "handwritten digits"
        ),
        hardware="2 CPU cores, 2 GB of memory",
        expected_time="3 to 5 minutes on two cores",
        parameters={"generations": 3, "omegas": [1.0], "pollution_sizes": [900]},
        experiment=QUICK,
    ),
]
