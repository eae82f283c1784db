"""Configuration of the stages that decode latents."""

from __future__ import annotations

from pydantic import Field

from sims_core.common.frozen import Frozen


class DecodeConfig(Frozen):
    """The first `count` latents; None is all of them."""

    count: int | None = Field(default=None, ge=1)
