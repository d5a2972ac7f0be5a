"""What a result was measured on, and where results lie."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
TOLD = (
    "torch",
    "torchvision",
    "faiss-cpu",
    "lancedb",
    "pgvector",
    "milvus-lite",
    "timm",
    "img2vec-pytorch",
    "DeepImageSearch",
    "openvino",
)


def machine() -> dict[str, str | int | dict[str, str]]:
    """Processor, cores and the versions that matter, as JSON."""
    return {
        "processor": _processor() or platform.machine(),
        "cores": os.cpu_count() or 1,
        "memory_gib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**30,
        "python": platform.python_version(),
        "packages": {name: found for name in TOLD if (found := _version(name))},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str | None:
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.exists() else []
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), None)
