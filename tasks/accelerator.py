"""One accelerator, many runs: a stage that needs it holds a slot of the server's limit `gpu`."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
from prefect.concurrency.sync import concurrency
from prefect.settings import PREFECT_API_URL

from sims_core.common.errors import BadInput
from sims_core.settings import Settings

logger = logging.getLogger("sims_core.accelerator")

GPU_LIMIT = "gpu"
"""Name of the global concurrency limit, made by `sims setup`."""
LEASE_S = 60
"""A killed run's slot is free again after at most so long."""


def needs_slot(settings: Settings) -> bool:
    """Whether this process shares its accelerator with other runs of the same server.

    The embedded API has no others, and no limit.
    """
    if not PREFECT_API_URL.value() or settings.gpu_slots == "never":
        return False
    return settings.gpu_slots == "always" or settings.execution().device != "cpu"


@contextmanager
def accelerator_slot(settings: Settings) -> Iterator[None]:
    """Holds a slot if one is needed; waits as long as others have them all.

    A server that is lost for a while does not end the stage that holds the slot.

    Raises:
        BadInput: the server has no such limit.
    """
    if not needs_slot(settings):
        yield
        return
    slot = concurrency(
        GPU_LIMIT, strict=True, lease_duration=LEASE_S, raise_on_lease_renewal_failure=False
    )
    with ExitStack() as stack:
        logger.info("wants a slot of the limit %s", GPU_LIMIT)
        try:
            stack.enter_context(slot)
        except ConcurrencySlotAcquisitionError as error:
            if error.__cause__ is not None:  # the server's trouble, which may pass
                raise
            raise BadInput(
                f"the Prefect server {PREFECT_API_URL.value()} has no concurrency limit "
                f"{GPU_LIMIT}: run `sims setup`, or set SIMS_GPU_SLOTS=never if no other run uses "
                "this accelerator"
            ) from None
        logger.info("has a slot of the limit %s", GPU_LIMIT)
        yield
