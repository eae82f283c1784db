"""The fresh-data loop on a fixed set of images: which of them each generation sees."""

from __future__ import annotations

from sims_core.common.errors import BadInput
from sims_core.data.config import ImageData


def check_no_fresh(data: ImageData) -> None:
    """Raises BadInput if the data say how many fresh images there are, for a loop without any."""
    for name in ("initial_images", "fresh_images"):
        if getattr(data, name) is not None:
            raise BadInput(
                f"data.{name} belongs to loop=fresh_data, every other loop has all of the real "
                "images: leave it out"
            )


def fresh_range(data: ImageData, t: int) -> tuple[int, int]:
    """First place in the set's random order, and count, of the images of generation t.

    The first generation sees n_ini of them, each later one n_r that none has seen (the MAD paper's
    fresh-data loop, arXiv 2307.01850).

    Raises:
        BadInput: n_ini is not set, the set is used up before generation t, or it is of latents.
    """
    first, contents = data.initial_images, data.contents
    if first is None or contents is None:
        of_all = f" of its {contents.count:,}" if contents else ""
        raise BadInput(
            f"loop fresh_data draws new real images of {data.title} in each generation: set "
            f"data.initial_images, how many{of_all} the first one sees, and data.fresh_images for "
            "the later ones"
        )
    if data.encoding is not None:
        raise BadInput("loop fresh_data is for images, and networks see the latents of these")
    later, available = data.fresh_images or first, contents.count
    start, count = (0, first) if t == 1 else (first + (t - 2) * later, later)
    if start + count > available:
        last = 1 + (available - first) // later
        raise BadInput(
            f"loop fresh_data runs out of new real images: data.initial_images {first:,} and "
            f"{t - 1} times data.fresh_images {later:,} are {start + count:,}, and {data.title} "
            f"has {available:,}: "
            + (f"set generations={last}, or lower them" if last > 0 else "lower them")
        )
    return start, count
