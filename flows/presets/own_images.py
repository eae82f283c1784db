"""sims-loop/own-images: the loop on images of your own.

    sims data import FOLDER --name own --size 32
    sims run sims-loop/own-images

Size and channels of the network are those of the images. The folder has a sub-folder for each
class, and the metrics are in the features of a classifier of these classes. Images without classes
are measured in Inception's features, which needs its weights and at least 2,049 images:

    sims data import FOLDER --name mine --size 64 --labels none
    sims run sims-loop/own-images -p data.name=mine

`-p model.net.num_classes=N` conditions the network on the N classes; the classes of generated
images are drawn evenly, so do it where there are about as many images of each. With 500 images or
fewer add `-p evaluation.kid_subset_size=100`, which must be below their number. The network is
small enough for a CPU, about 100 images a second and core in training. For images that matter take
a GPU and a larger one: `-p model.net.block_out_channels=[128,256,256] -p training.kimg=...`.
"""

from flows.presets import Preset
from sims_core.data.config import ImportedImages
from sims_core.diffusion.config import SamplerConfig
from sims_core.evaluation.config import ClassifierConfig, EvaluationConfig
from sims_core.methods.sims import Sims
from sims_core.nets.config import ModelConfig, UNetConfig
from sims_core.studies.experiment import Experiment
from sims_core.training.config import TrainingConfig

PRESETS = [
    Preset(
        flow="sims-loop",
        name="own-images",
        description="Standard training and SIMS on your own images (`sims data import`)",
        hardware="2 CPU cores, 4 GB of memory; a GPU for more than a first look",
        expected_time="about an hour at 32 x 32 on a CPU",
        parameters={"generations": 2, "omegas": [1.0], "pollution_sizes": [2000]},
        fits_data=True,
        experiment=Experiment(
            data=ImportedImages(name="own"),
            model=ModelConfig(
                net=UNetConfig(image_size=32, channels=3, block_out_channels=(16, 32, 64))
            ),
            training=TrainingConfig(
                kimg=100, batch_size=128, learning_rate=1e-3, ema_halflife_kimg=2
            ),
            sims=Sims(n_s=2000, budget_mimg=0.0128, batch_size=128, learning_rate=1e-4),
            sampler=SamplerConfig(num_steps=12),
            evaluation=EvaluationConfig(num_images=2000, classifier=ClassifierConfig(kimg=100)),
        ),
    )
]
