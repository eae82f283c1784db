"""Every method, as one type that configuration is read as."""

from __future__ import annotations

from typing import Annotated

from pydantic import (
    Field,
)

from sims_core.methods.sims import Sims
from sims_core.methods.standard import Standard

Method = Annotated[Standard | Sims, Field(discriminator="kind")]
