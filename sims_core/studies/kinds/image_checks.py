"""Whether the parts of an experiment on images fit together. Each check names the field to mend."""

from __future__ import annotations

from sims_core.data.config import ImageData
from sims_core.nets.config import ImageNet, Net
from sims_core.studies.experiment import Experiment

_TOLD_BY = {"unet": "augment_labels=true", "song": "augment_dim=9", "adm": "augment_dim=9"}
"""By kind of network: the setting that lets it be told of augmentation."""


def check_images(experiment: Experiment, data: ImageData) -> None:
    """Raises ValueError if data, networks, training and evaluation do not fit together."""
    net = experiment.model.net
    if not isinstance(net, ImageNet):
        raise ValueError(f"a {net.kind} network cannot model {data.source} data")
    _check_shape(experiment, net, data)
    _check_classes(experiment, net, data)
    _check_class_guidance(experiment, net)
    _check_noise_levels(experiment)
    _check_latents_are_not_augmented(experiment, data)
    _check_networks_are_told_of_augmentation(experiment)
    for name, other in experiment.auxiliary_nets.items():
        check_auxiliary_net(name, experiment, other)
    _check_enough_real_images(experiment, data)


def _check_shape(experiment: Experiment, net: ImageNet, data: ImageData) -> None:
    """Images that are not imported yet have nothing to compare."""
    if (found := data.modelled) is None:
        return
    wanted = (net.channels, net.image_size, net.image_size)
    if (found.channels, found.height, found.width) == wanted:
        return
    what, remedy = "images", "import the images with `size` and `channels`"
    if data.encoding is not None:
        what, remedy = "latents", ""
    elif net.channels not in (1, 3):
        remedy = "encode the images by `sims data encode`"
    if (name := experiment.base.imported) is not None:
        remedy = f"{name} keeps the network that it was trained with, so {remedy or 'take others'}"
    else:
        remedy = "set model.net.image_size and model.net.channels" + (remedy and f", or {remedy}")
    raise ValueError(
        f"model.net is for {what} of {net.channels} x {net.image_size} x {net.image_size} "
        f"(channels x height x width), those of {data.title} have "
        f"{found.channels} x {found.height} x {found.width}: {remedy}"
    )


def _check_noise_levels(experiment: Experiment) -> None:
    sampler = experiment.sampler
    known = experiment.model.sampler_for(sampler)
    for name in ("sigma_min", "sigma_max"):
        if (wanted := getattr(known, name)) != (given := getattr(sampler, name)):
            raise ValueError(
                f"sampler.{name} {given:g} is beyond the noise levels of this model: set it to "
                f"{wanted!r}"
            )


def _check_classes(experiment: Experiment, net: ImageNet, data: ImageData) -> None:
    if (found := data.modelled) is None or not net.num_classes:
        return
    if not found.num_classes:
        raise ValueError(
            f"model.net.num_classes is {net.num_classes}, but the images of {data.title} have no "
            + _remedy(experiment, "labels: set it to 0, or import them with `labels`")
        )
    if net.num_classes != found.num_classes:
        raise ValueError(
            f"model.net.num_classes is {net.num_classes}, {data.title} has {found.num_classes} "
            + _remedy(experiment, f"classes: set it to {found.num_classes}, or to 0 for none")
        )


def _check_class_guidance(experiment: Experiment, net: ImageNet) -> None:
    w = experiment.sampler.class_guidance
    if not w or net.knows_no_class:
        return
    name = experiment.base.imported
    remedy = "set model.net.num_classes and model.net.label_dropout=0.1 or"
    if name is not None:
        remedy = f"{name} keeps the network that it was trained with, so set"
    raise ValueError(
        f"sampler.class_guidance {w:g} needs a class-conditional network that was trained without "
        f"a class as well, and model.net was not: {remedy} sampler.class_guidance=0"
    )


def _remedy(experiment: Experiment, own: str) -> str:
    """What can be done about classes that do not fit: `own` where the network is ours to change."""
    if (name := experiment.base.imported) is None:
        return own
    what = own.partition(":")[0]
    return (
        f"{what}: {name} was trained with its classes and keeps them, so import the images with "
        "labels of the same ones"
    )


def _check_latents_are_not_augmented(experiment: Experiment, data: ImageData) -> None:
    for name in ("x_flip", "augment"):
        if getattr(experiment.training, name) and data.encoding is not None:
            raise ValueError(
                f"training.{name} must be {'false' if name == 'x_flip' else 0} for latents: "
                "those of a changed image are not the image's own, changed"
            )


def _check_networks_are_told_of_augmentation(experiment: Experiment) -> None:
    if not experiment.training.augment:
        return
    nets = experiment.auxiliary_nets
    if experiment.base.imported is None:  # one that is imported is fine-tuned as it can be
        nets = {"model.net": experiment.model.net, **nets}
    for name, net in nets.items():
        if isinstance(net, ImageNet) and not net.is_told_of_augmentation:
            remedy = "set"
            if net.kind in _TOLD_BY:
                remedy = f"set {name}.{_TOLD_BY[net.kind]} or"
            raise ValueError(
                f"training.augment {experiment.training.augment} needs a network that is told of "
                f"it, and {name} is not: {remedy} training.augment=0"
            )


def check_auxiliary_net(
    where: str, experiment: Experiment, other: Net, may_lack_classes: bool = False
) -> None:
    """Raises ValueError unless the network answers to what the base's does.

    Args:
        where: what a message calls it.
        may_lack_classes: it may be unconditional beside a base that is not.
    """
    net = experiment.model.net
    if not isinstance(other, ImageNet):
        raise ValueError(f"{where} is a {other.kind} network, which is none of images")
    for name in ("image_size", "channels", "num_classes"):
        found, wanted = getattr(other, name), getattr(net, name)
        lacks = may_lack_classes and name == "num_classes" and found == 0
        if found != wanted and not lacks:
            raise ValueError(f"{where}.{name} {found} must be model.net's, {wanted}")
    if experiment.sampler.class_guidance and other.num_classes and not other.knows_no_class:
        raise ValueError(
            f"sampler.class_guidance {experiment.sampler.class_guidance:g} guides the auxiliary as "
            f"well, which needs label dropout: set {where}.label_dropout=0.1"
        )


def _check_enough_real_images(experiment: Experiment, data: ImageData) -> None:
    if data.contents is None or experiment.evaluation.reference is not None:
        return
    evaluation, count = experiment.evaluation, data.contents.count
    if count < evaluation.fewest_images:
        raise ValueError(
            f"{count} real images are too few for an FID in {evaluation.features} features: "
            f"want at least {evaluation.fewest_images} (evaluation.min_images), or set "
            "evaluation.allow_small_n=true"
        )
    for name in ("kid_subset_size", "prc_neighborhood"):
        if getattr(evaluation, name) >= count:
            raise ValueError(
                f"evaluation.{name} {getattr(evaluation, name)} must be below the number of "
                f"real images, {count}"
            )
