"""Which device networks run on: the one asked for, or the best there is, said aloud."""

import logging
import platform

import torch

from models.errors import DeviceError

logger = logging.getLogger(__name__)


def choose_device(asked: str = "auto") -> torch.device:
    """`auto` takes CUDA, then Apple's MPS, then the CPU; anything else is taken at its word.

    Raises DeviceError (`device-unknown`, `device-missing`): a device that was asked for by name is
    never replaced by another.
    """
    if asked == "auto":
        chosen = "cuda" if torch.cuda.is_available() else "mps" if _mps() else "cpu"
        logger.info("running on %s", describe_device(torch.device(chosen)))
        return torch.device(chosen)
    try:
        device = torch.device(asked)
    except RuntimeError as error:
        raise DeviceError(
            "device-unknown", f"{asked!r} is no device: use auto, cpu, cuda, cuda:N or mps"
        ) from error
    there = {
        "cpu": 1,
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(_mps()),
    }.get(device.type, 0)
    if (device.index or 0) >= there:
        raise DeviceError(
            "device-missing",
            f"there is no device {asked!r} here; POOL5_DEVICE=auto takes the best there is",
        )
    logger.info("running on %s", describe_device(device))
    return device


def describe_device(device: torch.device) -> str:
    """The device in words, such as `cuda:0 (NVIDIA H100 80GB HBM3)` or `cpu (2 threads)`."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    if device.type == "mps":
        return f"mps ({platform.processor()})"
    return f"cpu ({torch.get_num_threads()} threads)"


def _mps() -> bool:
    return torch.backends.mps.is_available()


def training_precision(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies it, float32 elsewhere: emulated it is slower."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    native = device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if native else torch.float32
