"""How a training computes: device, precision, processes, micro-batches, compilation (accelerate).

Only the precision changes the result beyond the last digits of floats.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from sims_core.common.precision import Precision
from sims_core.engine.execution import Execution, check_precision


def _accelerator(device: torch.device, precision: Precision) -> Accelerator:
    """One for this training alone.

    accelerate keeps precision and device for the life of a process; a process of ours may compute
    several stages that differ in them. In a worker there is one training, and a process group.
    """
    if not torch.distributed.is_initialized():
        AcceleratorState._reset_state(reset_partial_state=True)
    name = "no" if precision == "fp32" else precision
    return Accelerator(cpu=device.type == "cpu", mixed_precision=name)


class Acceleration:
    """What `Training` asks for how to compute.

    Args:
        execution: device, processes (this one is among them if they were launched), micro-batch.
        precision: of the network's forward and backward pass; weights are float32 always.

    Raises:
        BadInput: the device cannot compute in that precision.
    """

    def __init__(self, execution: Execution, precision: Precision) -> None:
        device = torch.device(execution.device)
        check_precision("training.precision", precision, device.type)
        self.execution = execution
        self.accelerator = _accelerator(device, precision)
        self.processes = self.accelerator.num_processes
        self.rank = self.accelerator.process_index
        self.device = device if self.processes == 1 else self.accelerator.device

    def prepare(
        self, net: nn.Module, optimizer: torch.optim.Optimizer
    ) -> tuple[nn.Module, torch.optim.Optimizer]:
        """The network to call in training and the optimiser to step."""
        prepared: Any = self.accelerator.prepare_model(net, device_placement=False)
        if self.execution.compile is not None:
            prepared = torch.compile(prepared, backend=self.execution.compile)
        return prepared, self.accelerator.prepare_optimizer(optimizer, device_placement=False)

    def unwrap(self, net: nn.Module) -> None:
        """Takes accelerate's mixed precision off a prepared network again, in place."""
        self.accelerator.unwrap_model(net, keep_fp32_wrapper=False)

    def part(self, count: int) -> slice:
        """Which images of a batch of `count` are this process's."""
        start, end = (rank * count // self.processes for rank in (self.rank, self.rank + 1))
        return slice(start, end)

    def micro_batch_size(self, count: int) -> int:
        """Images of one forward pass, of this process's `count`."""
        return min(self.execution.micro_batch_size or count, count)

    def to_device(self, tensor: Tensor) -> Tensor:
        """To the device without waiting for what that is still computing."""
        if self.device.type != "cuda" or tensor.device.type == "cuda":
            return tensor.to(self.device)
        return tensor.pin_memory().to(self.device, non_blocking=True)

    def backward(self, loss: Tensor) -> None:
        """Adds the gradients of `loss`, scaled where fp16 wants it."""
        self.accelerator.backward(loss)

    def accumulating(self, net: nn.Module, last: bool) -> AbstractContextManager[Any]:
        """Round the forward and backward pass of a micro-batch: gradients of processes are averaged
        with the last one only."""
        return nullcontext() if last else self.accelerator.no_sync(net)

    def mean_over_processes(self, value: Tensor) -> Tensor:
        if self.processes == 1:
            return value
        mean: Tensor = self.accelerator.reduce(value, "mean")
        return mean

    @property
    def scaler_state(self) -> dict[str, Any]:
        """State of fp16's loss scaling; empty for other precisions."""
        scaler = self.accelerator.scaler
        return {} if scaler is None else scaler.state_dict()

    def load_scaler_state(self, state: dict[str, Any]) -> None:
        if self.accelerator.scaler is not None and state:
            self.accelerator.scaler.load_state_dict(state)
