"""`pool5 doctor`."""

import importlib.metadata
import os
import platform
import shutil
import sqlite3
from collections.abc import Callable
from typing import Any

import torch
import typer
from PIL import features

from models import device, runtime
from service import logs
from service.cli.options import ENGINE, Json, console, print_json, takes_settings
from service.engine import Engine, notices, weights_folder
from service.settings import Settings

PACKAGES = (
    "pool5",
    "torch",
    "torchvision",
    "openvino",
    "faiss-cpu",
    "opencv-python-headless",
    "pillow",
    "pi-heif",
    "fastapi",
)
FORMATS = ("jpg", "webp", "avif", "jpg_2000", "libtiff")
SPARE_BYTES = 1024**3


@takes_settings(*ENGINE)
def doctor(settings: Settings, json: Json = False) -> None:
    """Say what pool5 finds here, and what is wrong with it; exit status 1 if anything is."""
    logs.configure(settings.log_format, level=40)
    findings: dict[str, Callable[[], Any]] = {
        "versions": lambda: (
            {name: _version(name) for name in PACKAGES}
            | {"python": platform.python_version(), "sqlite": sqlite3.sqlite_version}
        ),
        "device": lambda: device.describe_device(device.choose_device(settings.device)),
        "runtimes": lambda: runtime.offered(device.choose_device(settings.device)),
        "threads": lambda: {"cores": os.cpu_count(), "torch": torch.get_num_threads()},
        "formats": _formats,
        "disk": lambda: _disk(settings),
        "collections": lambda: _collections(settings),
        "weights": lambda: _weights(settings),
    }
    report: dict[str, dict[str, Any]] = {}
    for name, find in findings.items():
        try:
            report[name] = {"ok": True, "found": find()}
        except Exception as error:  # noqa: BLE001 - every finding is reported, whatever broke it
            report[name] = {"ok": False, "found": str(error)}
    if json:
        print_json(report)
    else:
        for name, finding in report.items():
            mark = "[green]ok[/]   " if finding["ok"] else "[red]wrong[/]"
            console.print(f"{mark} {name}: ", finding["found"], soft_wrap=True)
    if not all(finding["ok"] for finding in report.values()):
        raise typer.Exit(1)


def _version(package: str) -> str:
    """OpenVINO has no wheel for every machine, and torch then runs the networks."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _formats() -> list[str]:
    missing = [name for name in FORMATS if not features.check(name)]
    if missing:
        raise RuntimeError(f"Pillow was built without {', '.join(missing)}: install its wheel")
    return [*FORMATS, "heif"]


def _disk(settings: Settings) -> dict[str, Any]:
    settings.data.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(settings.data).free
    if free < SPARE_BYTES:
        raise RuntimeError(f"only {free} bytes are free in {settings.data}: make room")
    return {"data": str(settings.data), "free_bytes": free}


def _collections(settings: Settings) -> dict[str, Any]:
    with Engine(settings) as engine:
        return {
            collection.name: {**collection.status(), "notices": notices(collection)}
            for collection in engine.catalog.collections()
        }


def _weights(settings: Settings) -> dict[str, str]:
    found = weights_folder(settings).verify()
    bad = [file for file in found if file.status in ("changed", "missing")]
    wrong = [f"{file.file} is {file.status}" for file in bad]
    if wrong:
        raise RuntimeError("; ".join(wrong) + ": `pool5 weights pull` fetches official files again")
    return {file.file: file.status for file in found}
