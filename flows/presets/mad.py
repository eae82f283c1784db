"""sims-loop/mad-*: the MAD paper's three kinds of loop (arXiv 2307.01850), on digits and on MNIST.

    sims run sims-loop/mad-digits-synthetic
    sims run sims-loop/mad-digits-augmentation
    sims run sims-loop/mad-digits-fresh

Each has two arms: unbiased sampling (lambda = 1) and sampling that takes quality over diversity
(lambda = 1/2, classifier-free guidance w = 1). Read precision and recall over t: docs/mad.md.

Known of the paper's MNIST [K]: class-conditional models, 10 % of labels dropped in training,
lambda = 1 / (1 + w), 60k real and 60k synthetic images, in the fresh-data loop n_r = n_s = 2k with
n_ini 2k or 3k (`-p data.initial_images=3000`), precision and recall at k = 5. There the model is a
DDPM of T = 500 steps and the features are LeNet's; here the model is EDM's and the features are
those of the classifier that every preset of these images has [O]. Network, budgets, sampler, the
number of generations and everything of the digits is our own choice as well [O].

The times, for three seeds, are estimated from what a CPU core does with these networks
(measured): on digits 570 images a second in training and 2,240 evaluations a second in sampling,
on MNIST 140 and 350.
"""

from flows.presets import Preset
from flows.presets.digits import EXPERIMENT as DIGITS
from flows.presets.mnist import experiment as mnist_experiment
from sims_core.data.config import ImageData
from sims_core.nets.config import UNetConfig
from sims_core.studies.experiment import Experiment
from sims_core.studies.loop import LoopKind

LABEL_DROPOUT = 0.1
NEIGHBORHOOD = 5
"""k of precision and recall."""


def _conditional(experiment: Experiment) -> Experiment:
    """The experiment with a class-conditional network and MAD's evaluation."""
    model, evaluation, net = experiment.model, experiment.evaluation, experiment.model.net
    if not isinstance(net, UNetConfig):
        raise TypeError(f"want a U-Net, got {net.kind}")
    net = net.model_copy(update={"num_classes": 10, "label_dropout": LABEL_DROPOUT})
    return experiment.model_copy(
        update={
            "model": model.model_copy(update={"net": net}),
            "evaluation": evaluation.model_copy(update={"prc_neighborhood": NEIGHBORHOOD}),
        }
    )


def _fresh(experiment: Experiment, first: int, later: int) -> Experiment:
    """The experiment with n_ini and n_r."""
    data = experiment.data
    if not isinstance(data, ImageData):
        raise TypeError(f"want images, got {data.source}")
    data = data.model_copy(update={"initial_images": first, "fresh_images": later})
    return experiment.model_copy(update={"data": data})


_DIGITS, _MNIST = _conditional(DIGITS), _conditional(mnist_experiment("mnist"))
_LOOPS = {
    LoopKind.fully_synthetic: ("synthetic", "Fully synthetic loop (MAD)"),
    LoopKind.synthetic_augmentation: ("augmentation", "Synthetic augmentation loop (MAD)"),
    LoopKind.fresh_data: ("fresh", "Fresh data loop (MAD)"),
}


def _preset(loop: LoopKind, source: str, size: int, time: str, experiment: Experiment) -> Preset:
    digits, (name, title) = source == "digits", _LOOPS[loop]
    return Preset(
        flow="sims-loop",
        name=f"mad-{source}-{name}",
        description=(
            f"{title} on {'handwritten digits' if digits else 'MNIST'}, with and without "
            "sampling bias"
        ),
        hardware="2 CPU cores, " + ("2 GB" if digits else "8 GB") + " of memory",
        expected_time=time,
        parameters={
            "generations": 6,
            "methods": ["standard"],
            "loop": loop,
            "pollution_sizes": [size],
            "class_guidances": [0.0, 1.0],
            "seeds": [0, 1, 2],
        },
        experiment=experiment,
    )


_DIGITS_TIME = "half an hour on two cores (estimated from what a core does, see mad.py)"
_MNIST_TIME = "{} on two cores (estimated from what a core does, see mad.py)"

PRESETS = [
    _preset(LoopKind.fully_synthetic, "digits", 1797, _DIGITS_TIME, _DIGITS),
    _preset(LoopKind.synthetic_augmentation, "digits", 1797, _DIGITS_TIME, _DIGITS),
    _preset(LoopKind.fresh_data, "digits", 250, _DIGITS_TIME, _fresh(_DIGITS, 300, 250)),
    _preset(LoopKind.fully_synthetic, "mnist", 60_000, _MNIST_TIME.format("33 hours"), _MNIST),
    _preset(
        LoopKind.synthetic_augmentation, "mnist", 60_000, _MNIST_TIME.format("33 hours"), _MNIST
    ),
    _preset(
        LoopKind.fresh_data,
        "mnist",
        2000,
        _MNIST_TIME.format("six hours"),
        _fresh(_MNIST, 2000, 2000),
    ),
]
