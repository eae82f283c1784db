"""How many images are measured: other numbers than the preset's, errors that say the remedy."""

from __future__ import annotations

import re

from pydantic import ValidationError

from sims_core.common.errors import BadInput
from sims_core.common.frozen import one_line
from sims_core.evaluation.config import EvaluationConfig

TOO_FEW_FOR_KID = re.compile(r"\bkid_subset_size \d+ exceeds num_images (\d+)")


def told_with_remedy(error: ValidationError) -> str:
    """An error in one line. Of sets smaller than KID's subsets it says what to lower: who asks for
    fewer images has not heard of subsets."""
    told = one_line(error).removeprefix("value: ")
    if found := TOO_FEW_FOR_KID.search(told):
        told += f": lower evaluation.kid_subset_size to {found[1]} or less"
    return told


def evaluation_of(evaluation: EvaluationConfig, count: int, parameter: str) -> EvaluationConfig:
    """The configuration for `count` images.

    Raises:
        BadInput: they are too few, naming the flow's parameter.
    """
    try:
        return EvaluationConfig.model_validate({**evaluation.model_dump(), "num_images": count})
    except ValidationError as error:
        raise BadInput(f"{parameter}: {told_with_remedy(error)}") from None
