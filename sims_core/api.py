"""The science in plain Python: models as denoisers, sampled, guided, fine-tuned; images measured.

Each function does what a stage of a run does, with the same numbers, and needs neither a run nor
Prefect. Arrays of images are [N, channels, height, width].
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from warnings import warn

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from sims_core.common.errors import BadInput
from sims_core.common.seeding import check_seed, image_seed
from sims_core.data.grid import encode_png, image_grid
from sims_core.data.ranges import to_uint8
from sims_core.data.types import Images
from sims_core.diffusion.config import SamplerConfig
from sims_core.diffusion.denoiser import Denoiser, NetDenoiser
from sims_core.diffusion.guidance import negative_guidance
from sims_core.diffusion.sampler import make_sampler
from sims_core.engine.execution import Execution, check_precision
from sims_core.engine.stage import Progress, no_progress
from sims_core.evaluation.figures import METRICS_KIND, read_figures
from sims_core.nets import saved
from sims_core.nets.build import image_net, round_to_known
from sims_core.nets.config import ModelConfig
from sims_core.nets.files import MODEL_FILE
from sims_core.sampling.images import image_labels, sample_images
from sims_core.settings import Settings
from sims_core.store.artifacts import ArtifactRef
from sims_core.store.store import Store
from sims_core.studies.comparison import Features, plan_comparison
from sims_core.studies.folders import import_folder
from sims_core.studies.running import Runner
from sims_core.training.config import TrainingConfig
from sims_core.training.images import checked_labels
from sims_core.training.trainer import Training
from sims_core.training.trainer import train as run_training

METRICS_TABLE = "metrics.parquet"


@dataclass(frozen=True)
class Model:
    """A denoiser D(x; sigma), to be called as one, and what it was made with."""

    denoiser: Denoiser
    config: ModelConfig
    """Network and preconditioning; of a guided model those of its base."""
    device: str = "cpu"

    def __call__(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None, /) -> Tensor:
        """The denoised estimate of x [N, ...] at noise level sigma, a scalar or [N]; x's shape.

        The score is (D(x; sigma) - x) / sigma^2.
        """
        return self.denoiser(x, sigma, labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one image.

        Raises:
            BadInput: it is a model of points.
        """
        net = image_net(self.config)
        return net.channels, net.image_size, net.image_size

    @property
    def num_classes(self) -> int:
        """How many classes it is conditioned on; 0: it is unconditional."""
        return image_net(self.config).num_classes


def load_model(folder: str | Path, device: str = "cpu") -> Model:
    """Reads a model in evaluation mode, without gradients.

    Args:
        folder: `store/artifacts/model/<digest>`, a run's link to one
            (`store/runs/<run>/arms/<arm>/t=01/train_base`), or what `save_model` wrote.
        device: where it computes: "cpu", "cuda", "cuda:1".

    Raises:
        BadInput: there is no model in that folder.
        DamagedArtifact: it lies in a store, and a file of it is missing or has changed.
    """
    path = Path(folder).expanduser().resolve()
    if not (path / MODEL_FILE).is_file():
        raise BadInput(
            f"{folder}: no model is there (no {MODEL_FILE}); want a folder of "
            "artifacts/model/ in a store, or a link to one as runs/<run>/arms/<arm>/t=01/train_base"
        )
    if (path.parent.name, path.parent.parent.name) == ("model", "artifacts"):
        store = Store(path.parents[2])
        path = store.open_artifact(ArtifactRef(kind="model", digest=path.name))
    denoiser, config = saved.load_model(path, device)
    return Model(denoiser, config, device)


def save_model(model: Model, folder: str | Path) -> None:
    """Writes a model into a new folder, as safetensors beside JSON.

    Raises:
        BadInput: the folder is there already, or the model is a guided one: save its two parts.
    """
    denoiser, path = _network_of(model, "saved"), Path(folder).expanduser()
    if path.exists():
        raise BadInput(f"{folder} is there already: give the name of a new folder")
    path.mkdir(parents=True)
    saved.save_model(denoiser, model.config, path)


def _network_of(model: Model, purpose: str) -> NetDenoiser:
    """The model's own network. Raises BadInput if it has none, being made of two."""
    if not isinstance(model.denoiser, NetDenoiser):
        raise BadInput(f"a guided model has no network of its own and cannot be {purpose}")
    return model.denoiser


def sample(
    model: Model,
    count: int,
    *,
    seed: int = 0,
    labels: Sequence[int] | None = None,
    sampler: SamplerConfig | None = None,
    batch_size: int = 256,
) -> Tensor:
    """Draws images by EDM's deterministic sampler (arXiv 2206.00364, Algorithm 1).

    Image i is a function of the model, the sampler and seed + i alone: 100 images from seed 0 are
    the first 100 of 1,000 from seed 0, up to the last digits of floats.

    Args:
        model: of images, guided or not.
        seed: of the first image; images of seeds apart by `count` or more share no noise.
        labels: class of each image for a conditional model. None: drawn from the image's seed.
        sampler: default: Heun's method in 18 steps, within the noise levels that the model knows.
        batch_size: how many images are computed at once.

    Returns:
        float32 [count, channels, height, width] on the CPU, about -1 to 1.

    Raises:
        BadInput: a count, seed, labels or a sampler that do not fit.
        SimsError: the values ran away, as they do under too strong a guidance.
    """
    check_seed(seed)
    if count < 1 or batch_size < 1:
        raise BadInput(f"count {count} and batch_size {batch_size} must be at least 1")
    seeds = [image_seed(seed, index) for index in range(count)]
    wanted = sampler or SamplerConfig()
    if wanted.precision != "fp32":
        raise BadInput(f"sampler.precision is {wanted.precision}; here it must be fp32")
    solve = make_sampler(model.config.sampler_for(wanted), round_to_known(model.config))
    found = sample_images(
        *(model, solve, seeds, model.shape, batch_size, model.device),
        labels=_labels_for(model, seeds, labels),
        finish=_finite,
    )
    return torch.from_numpy(found)


def _finite(samples: Tensor) -> NDArray[np.float32]:
    to_uint8(samples)  # raises if a value is not finite
    found: NDArray[np.float32] = samples.float().cpu().numpy()
    return found


def _labels_for(
    model: Model, seeds: Sequence[int], labels: Sequence[int] | None
) -> Sequence[int] | None:
    """The class of each image. Raises BadInput if those given do not fit the model."""
    classes = model.num_classes
    if labels is None:
        return image_labels(seeds, classes)
    if not classes:
        raise BadInput("labels were given, and the model is unconditional: leave them out")
    found = [int(label) for label in labels]
    if len(found) != len(seeds) or not all(0 <= label < classes for label in found):
        raise BadInput(f"labels must be {len(seeds)} classes of 0 to {classes - 1}")
    return found


def guide(base: Model, auxiliary: Model, omega: float) -> Model:
    """SIMS's negative guidance (arXiv 2408.16333, Algorithm 1): away from the auxiliary.

    D = (1 + omega) D_base - omega D_auxiliary. omega = 0 is the base itself.

    Args:
        base: trained on real images.
        auxiliary: the base, fine-tuned on its own samples.
        omega: strength, at least 0.

    Raises:
        BadInput: omega is negative, or the models are of different images, classes or devices.
    """
    for what in ("shape", "num_classes", "device"):
        one, other = getattr(base, what), getattr(auxiliary, what)
        if one != other:
            raise BadInput(f"the base's {what} is {one}, the auxiliary's {other}: must be equal")
    return replace(base, denoiser=negative_guidance(base.denoiser, auxiliary.denoiser, omega))


def train(
    images: Images | Tensor,
    model: ModelConfig,
    training: TrainingConfig,
    *,
    labels: Sequence[int] | None = None,
    seed: int = 0,
    device: str = "cpu",
    progress: Progress = no_progress,
) -> Model:
    """Trains a new network on images, by EDM's loss (arXiv 2206.00364, Eq. 8).

    Args:
        images: uint8 [N, C, H, W], or floats of about -1 to 1.
        labels: class of each image, for a conditional network.
        seed: of initial weights, order and noise.
        progress: called now and then as progress(images seen, of all, "img", loss=...).

    Returns:
        The model with the average of its weights.

    Raises:
        BadInput: images or labels that do not fit the network, or a seed out of bounds.
        TrainingDiverged: the loss or the weights stopped being finite.
    """
    return _train(images, model, training, None, labels, seed, device, progress)


def fine_tune(
    model: Model,
    images: Images | Tensor,
    training: TrainingConfig,
    *,
    labels: Sequence[int] | None = None,
    seed: int = 0,
    progress: Progress = no_progress,
) -> Model:
    """Trains a copy of a model further, with a new optimiser; `model` stays as it is.

    Arguments, result and errors as `train`, on the model's device. SIMS's auxiliary is the base
    fine-tuned on images that the base has drawn.
    """
    initial = _network_of(model, "fine-tuned")
    return _train(images, model.config, training, initial, labels, seed, model.device, progress)


def _train(
    images: Images | Tensor,
    model: ModelConfig,
    training: TrainingConfig,
    initial: NetDenoiser | None,
    labels: Sequence[int] | None,
    seed: int,
    device: str,
    progress: Progress,
) -> Model:
    check_seed(seed)
    data, net = torch.as_tensor(images), image_net(model)
    wanted = (net.channels, net.image_size, net.image_size)
    if data.dim() != 4 or not len(data) or tuple(data.shape[1:]) != wanted:
        raise BadInput(f"images are {[*data.shape]}, the network's are [N, *{list(wanted)}]")
    classes = None if labels is None else np.asarray(labels, dtype=np.int64)
    if classes is not None and classes.shape != (len(data),):
        raise BadInput(f"labels are {[*classes.shape]}: want one for each of {len(data)} images")
    check_precision("training.precision", training.precision, device)
    run = Training(
        *(model, training, data, seed, initial),
        labels=checked_labels(classes, net),
        execution=Execution(device=device),
    )
    return Model(run_training(run, progress=progress), model, device)


def save_images(
    images: Images | Tensor, folder: str | Path, labels: Sequence[int] | None = None
) -> None:
    """Writes images as PNG files into a new folder, by class if there are labels.

    Args:
        images: uint8 [N, C, H, W], or floats of -1 to 1, rounded to the nearest of 256 levels.

    Raises:
        BadInput: the folder is there already.
    """
    path, pixels = Path(folder).expanduser(), _pixels(images)
    if path.exists():
        raise BadInput(f"{folder} is there already: give the name of a new folder")
    names = [""] * len(pixels) if labels is None else [str(int(label)) for label in labels]
    if len(names) != len(pixels):
        raise BadInput(f"{len(names)} labels for {len(pixels)} images: want one for each")
    for index, (image, name) in enumerate(zip(pixels, names, strict=True)):
        file = path / name / f"{index:06d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode_png(image))


def grid(images: Images | Tensor, columns: int = 16) -> bytes:
    """A PNG of images in rows of `columns`, for `IPython.display.Image` or a file."""
    return image_grid(_pixels(images), columns)


def _pixels(images: Images | Tensor) -> Images:
    data = torch.as_tensor(images)
    return data.cpu().numpy() if data.dtype == torch.uint8 else to_uint8(data)


def evaluate(
    images: str | Path,
    reference: str | Path,
    *,
    features: Features = "inception",
    metrics: Sequence[str] = (),
    size: int | None = None,
    channels: int | None = None,
    allow_small_n: bool = False,
    seed: int = 0,
    store: str | Path | None = None,
) -> dict[str, float]:
    """FID, KID, precision and recall of one folder of images against another.

    Figures of different features, or of different numbers of images, cannot be compared. What is
    doubtful about a comparison (few images, other encodings) is said by Python's warnings.

    Args:
        images, reference: anything that `sims data import` takes: folders, zips, Parquet files.
        features: "inception" (the FID of papers), "resnet20", "resnet56"; their weights are found
            by SIMS_INCEPTION_WEIGHTS or SIMS_DATA. "classifier": one that is trained on the
            reference, whose sub-folders are its classes.
        metrics: names of further metrics, such as "density_coverage".
        size, channels: all images are cropped and resized to so many pixels, or made grey or RGB.
        allow_small_n: measure also where an FID is mostly its bias.
        seed: of KID's subsets and of the classifier.
        store: a store that keeps what is computed, such as the features of the reference, for
            later calls. None: nothing is kept.

    Returns:
        Figures by name, with `n_generated` and `n_real` beside them.

    Raises:
        BadInput: images that cannot be read, are too few, or that the features do not fit; a seed.
    """
    check_seed(seed)
    settings, threads = Settings.read(), torch.get_num_threads()
    execution = settings.execution()
    place = nullcontext(str(store)) if store is not None else TemporaryDirectory()
    with place as root:
        opened = Store.open(root)
        try:
            comparison = plan_comparison(
                import_folder(opened, execution, images, size, channels),
                import_folder(opened, execution, reference, size, channels),
                settings.files(),
                features=features,
                metrics=metrics,
                allow_small_n=allow_small_n,
                seed=seed,
            )
            for warning in comparison.warnings:
                warn(warning, stacklevel=2)
            Runner(opened, execution).run("", comparison.stages)
        finally:
            torch.set_num_threads(threads)  # a stage sets its own
        refs = [stage.ref for stage in comparison.stages if stage.ref.kind == METRICS_KIND]
        return {name: float(value) for name, value in read_figures(opened, refs).items()}


def read_metrics(run: str | Path) -> pa.Table:
    """A run's table of figures: a row for each generation of an arm, or each model of a study.

    Args:
        run: the run's folder, `store/runs/<run>`.

    Returns:
        A pyarrow table; `.to_pandas()` makes a data frame of it where pandas is installed.

    Raises:
        BadInput: the run is not there, or has not ended.
    """
    path = Path(run).expanduser() / METRICS_TABLE
    try:
        return pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        problem = str(error).splitlines()[0]
        raise BadInput(f"{run}: no figures of a run can be read there ({problem})") from None
