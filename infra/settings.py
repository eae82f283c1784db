"""Settings of the machine, from the environment (SIMS_*); none changes a result's digest."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from sims_core.config import DataFiles, Execution, one_line
from sims_core.errors import BadInput

NVIDIA_FILES = (Path("/dev/nvidiactl"), Path("/dev/dxg"))
"""One of them is there if an NVIDIA driver is: Linux's own, or that of its Windows host."""


class Settings(BaseSettings):
    """Where the store lies and what computes. Each field is read from SIMS_<NAME>."""

    model_config = SettingsConfigDict(env_prefix="SIMS_", frozen=True, env_ignore_empty=True)

    store: Path = Path("store")
    """Folder of the artifact store."""
    store_must_exist: bool = False
    """For workers: where the store is not mounted a new one would hide the mistake."""
    data: Path | None = None
    """Folder in which known data sets and the weights of feature extractors are looked for."""
    inception_weights: Path | None = None
    """File with the weights of 2015 of Inception, as torch-fidelity's inception-v3-compat."""
    downloads: Path = Path("~/.cache/sims-loop")
    """Folder for data sets that are fetched since they are not in the data folder."""
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$")] = "auto"
    """cpu, cuda, cuda:1, mps, or auto: cuda where there is one, else cpu."""
    gpu_slots: Literal["auto", "always", "never"] = "auto"
    """Whether stages that want the accelerator hold a slot of the Prefect server's limit `gpu`;
    auto: unless the device is the CPU."""
    threads: Annotated[int, Field(ge=1)] | None = None
    """torch's threads on the CPU; unset: one per processor that this process may use."""
    sampling_batch_size: Annotated[int, Field(ge=1)] = 256
    checkpoint_kimg: Annotated[float, Field(gt=0)] = 2.0
    processes: Annotated[int, Field(ge=1)] = 1
    """Training processes that share each batch; on GPUs one a GPU."""
    micro_batch_size: Annotated[int, Field(ge=1)] | None = None
    """At most so many images at once in training, in each process; unset: the whole batch."""
    compile: Literal["inductor", "eager"] | None = None
    """torch.compile's backend for networks of images; unset: no compilation."""
    channels_last: bool = True

    @classmethod
    def read(cls) -> Settings:
        """The settings of this process.

        Raises:
            BadInput: a SIMS_ variable has an invalid value.
        """
        try:
            return cls()
        except ValidationError as error:
            name, _, problem = one_line(error).partition(":")
            raise BadInput(f"environment variable SIMS_{name.upper()}:{problem}") from None

    def execution(self) -> Execution:
        """How this machine runs a stage.

        Raises:
            BadInput: SIMS_DEVICE names a device that it does not have, or one GPU for several
                processes.
        """
        return Execution(
            device=self._device(),
            threads=self.threads or len(os.sched_getaffinity(0)),
            sampling_batch_size=self.sampling_batch_size,
            checkpoint_kimg=self.checkpoint_kimg,
            files=self.files(),
            num_processes=self._processes(),
            micro_batch_size=self.micro_batch_size,
            compile=self.compile,
            channels_last=self.channels_last,
        )

    def files(self) -> DataFiles:
        """Where data and weights are read."""
        return DataFiles(
            source=self.data and self.data.expanduser().absolute(),
            downloads=self.downloads.expanduser().absolute(),
            inception=self.inception_weights and self.inception_weights.expanduser().absolute(),
        )

    def _processes(self) -> int:
        if self.processes > 1 and self._device().partition(":")[2]:
            raise BadInput(
                f"SIMS_DEVICE is {self.device}, one GPU, but SIMS_PROCESSES is {self.processes}: "
                "set SIMS_DEVICE=cuda (and CUDA_VISIBLE_DEVICES to choose among GPUs)"
            )
        return self.processes

    def _device(self) -> str:
        # Asking the driver's device files spares a cached run the seconds of importing torch.
        if self.device == "auto":
            return "cuda" if NVIDIA_FILES[0].exists() else "cpu"
        if self.device.startswith("cuda") and not any(map(Path.exists, NVIDIA_FILES)):
            raise BadInput(
                f"SIMS_DEVICE is {self.device}, but this machine has no NVIDIA driver: unset it"
            )
        return self.device


ENVIRONMENT_DEFAULTS = {
    # No call to any outside host. The first is for the client; the others are the server's.
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_SERVER_UI_V2_ENABLED": "false",
    # A small machine needs longer than Prefect's 20 s to start the embedded API.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    # A run that sends none any more is dead; see infra/setup.py.
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "sims_core",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    # How long a waiting OpenMP thread spins before it sleeps. The default makes work beside other
    # work on few cores slower, at times 20 times; see tests/benchmarks/bench_openmp_wait.py.
    "GOMP_SPINCOUNT": "2000",
}
"""Of every process: `sims`, server, worker. prefect.toml says the same to the `prefect` command."""

CONSOLE_DEFAULTS = {
    # The run shows its own progress; Prefect's log is in its UI.
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
}
"""Of `sims` alone: a worker shows the log of its runs."""


def apply_environment_defaults() -> None:
    """Sets what this project wants of Prefect and OpenMP unless the user said otherwise.

    Must run before prefect and torch are imported, since they read the environment then.
    """
    for name, value in {**ENVIRONMENT_DEFAULTS, **CONSOLE_DEFAULTS}.items():
        os.environ.setdefault(name, value)
