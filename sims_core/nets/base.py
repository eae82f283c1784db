"""What a network's configuration is: an open union of classes, one for each architecture."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from pydantic import BeforeValidator, Field, SerializeAsAny

from sims_core.common.frozen import Frozen
from sims_core.common.variants import Variants
from sims_core.nets.preconditioning_config import Preconditioning


class Net(Frozen):
    """A network. Each architecture is a subclass, told apart by `kind`."""

    BUILT_BY: ClassVar[str]
    """`module:class` of the network, which is made from this configuration alone."""
    TRAINED_BY: ClassVar[str]
    """`module:function` that computes stage `train` for such a network."""
    TINY: ClassVar[bool] = False
    """Whether its matrices are so small that a second thread costs more than it saves."""

    kind: str

    def preconditioning(self, sigma_data: float) -> Preconditioning | None:
        """The preconditioning that such a network is trained with; None: EDM's or any other."""
        return None


NETS: Variants[Net] = Variants("network", "kind", Net)
"""Every architecture: a class is one by `@NETS.add(<kind>)`."""
NetConfig = Annotated[SerializeAsAny[Net], BeforeValidator(NETS.read)]


class PointNet(Net):
    """A model of points."""

    TRAINED_BY: ClassVar[str] = "sims_core.training.points:train_point_model"
    TINY: ClassVar[bool] = True

    def for_data(self, dim: int, replicates: int) -> Self:
        """The network for so many replicates of points.

        Raises:
            ValueError: it is for points of another dimension.
        """
        return self

    @property
    def covariance_factor(self) -> float:
        """What the covariance of what is sampled is multiplied by."""
        return 1.0


class ImageNet(Net):
    """A model of images or latents of shape [N, channels, image_size, image_size]."""

    TRAINED_BY: ClassVar[str] = "sims_core.training.compute:train_images"

    image_size: Annotated[int, Field(ge=4, le=4096)]
    channels: Annotated[int, Field(ge=1, le=1024)]
    num_classes: Annotated[int, Field(ge=0, le=10**6)] = 0
    """Classes that the network is conditioned on; 0 is unconditional."""

    @property
    def drops_out(self) -> bool:
        """Whether activations are dropped in training."""
        return False

    @property
    def knows_no_class(self) -> bool:
        """Whether a class-conditional network was trained without a class as well (with label
        dropout), so that labels of None mean something to it."""
        return False

    @property
    def is_told_of_augmentation(self) -> bool:
        """Whether it is told, in training, how an image was augmented."""
        return False
