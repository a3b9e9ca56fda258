"""The device that a training runs on."""

import torch

from pipeline.errors import ConfigError
from pipeline.settings import DeviceName


def choose_device(name: DeviceName, num_threads: int | None = None) -> torch.device:
    """Return the device, and set the number of threads of torch's kernels on the CPU.

    name: ``auto`` takes CUDA where there is one.

    Raises:
        ConfigError: the name is ``cuda`` and torch finds no CUDA device.
    """
    if num_threads is not None:
        torch.set_num_threads(num_threads)
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device is cuda, but torch finds no CUDA device here; use cpu or auto")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
