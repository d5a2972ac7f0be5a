"""`pool5 train embedded`."""

import hashlib
import json as json_module
from pathlib import Path
from typing import Annotated

import torch
import typer

from models import TrainingError, Weights
from models.device import choose_device, training_precision
from models.training import embedded
from models.training.batches import WINDOW
from models.training.loop import Plan, Progress, train
from models.training.procedural import render_gallery
from models.training.shards import SIZE, prepare
from models.training.teacher import Teachers
from models.training.views import Views
from service import logs
from service.cli.options import Json, print_json, status, takes_settings
from service.cli.progress import counted
from service.engine import weights_folder
from service.indexing.folder import FolderSource
from service.settings import Settings


@takes_settings("device", "weights_dir", "offline", "max_picture_bytes")
def train_embedded(
    settings: Settings,
    work: Annotated[
        Path, typer.Argument(help="folder for pictures, shards, checkpoint and result")
    ],
    photographs: Annotated[Path | None, typer.Option(help="folder of photographs to crop")] = None,
    teacher: Annotated[
        list[str] | None,
        typer.Option(help="network=weights to imitate, repeatable; none: learn by contrast"),
    ] = None,
    pictures: Annotated[int, typer.Option(help="procedural pictures to render", min=0)] = 4000,
    shards: Annotated[int, typer.Option(help="shards of 1024 views to prepare", min=1)] = 64,
    steps: Annotated[int, typer.Option(help="training steps", min=1)] = 6000,
    batch: Annotated[int, typer.Option(help="views in a step, an even number", min=2)] = 128,
    learning_rate: Annotated[float, typer.Option(help="at its highest", min=0.0)] = 2e-3,
    seed: Annotated[int, typer.Option(help="of views, order and first weights", min=0)] = 0,
    json: Json = False,
) -> None:
    """Train AlexNet's trunk by distillation or by contrast; killed, it goes on where it stopped."""
    logs.configure(settings.log_format, level=30)
    _check(pictures, photographs, shards, batch)
    found = _paths(settings, photographs)
    device = choose_device(settings.device)
    teachers = Teachers([_weights(settings, text) for text in teacher or ()], device)
    views, paths = _prepared(work, found, teachers, pictures, shards, seed)
    facts = {
        "photographs": len(views.photographs),
        "pictures": pictures,
        "views": views.recipe(),
        "shards": shards,
        "steps": steps,
        "batch": batch,
        "learning_rate": learning_rate,
        "seed": seed,
        "teachers": {one.network: one.sha256 for one in teachers.weights},
    }
    recipe = hashlib.sha256(json_module.dumps(facts, sort_keys=True).encode()).hexdigest()
    plan = Plan(steps, learning_rate, recipe=recipe)
    lesson = embedded.Lesson(paths, steps, batch, seed, device)
    trained = _trained(lesson, plan, work, device)
    path = work / embedded.FILE
    embedded.save(trained, path, facts)
    if json:
        print_json({"path": path, **facts})
    else:
        status.print(f"the trained weights are {path}", markup=False)


def _check(pictures: int, photographs: Path | None, shards: int, batch: int) -> None:
    """Say now what would otherwise be said after an hour of preparing."""
    if batch % 2:
        raise TrainingError("training-plan-invalid", f"--batch {batch}: pairs need an even number")
    together = min(shards, WINDOW) * SIZE
    if batch > together:
        raise TrainingError(
            "training-plan-invalid",
            f"--batch {batch} is more than the {together} views that are shuffled together",
        )
    if not pictures and photographs is None:
        raise TrainingError(
            "training-plan-invalid", "there is no picture to learn from: name --photographs"
        )


def _prepared(
    work: Path, photographs: list[Path], teachers: Teachers, pictures: int, shards: int, seed: int
) -> tuple[Views, list[Path]]:
    with counted("rendering pictures", pictures) as (bar, task):
        drawn = render_gallery(
            work / "pictures",
            pictures,
            side=224,
            progress=lambda done, _: bar.update(task, completed=done),
        )
    views = Views(photographs, drawn, seed=seed)
    with counted("preparing shards", shards) as (bar, task):
        paths = prepare(
            views,
            teachers,
            work / "shards",
            shards,
            progress=lambda done, _: bar.update(task, completed=done),
        )
    return views, paths


def _trained(
    lesson: embedded.Lesson, plan: Plan, work: Path, device: torch.device
) -> torch.nn.Module:
    precision = training_precision(device)
    with counted(f"training in {str(precision).removeprefix('torch.')}", plan.steps) as (bar, task):

        def show(now: Progress) -> None:
            remark = f"loss {now.loss:.3f}, {now.views_per_s:.0f} views/s"
            bar.update(task, completed=now.step, remark=remark)

        return train(lesson, plan, work, precision, progress=show)


def _weights(settings: Settings, text: str) -> Weights:
    network, _, choice = text.partition("=")
    return weights_folder(settings).resolve(network, choice or "auto")


def _paths(settings: Settings, folder: Path | None) -> list[Path]:
    """The photographs of a folder, in the order of their names."""
    if folder is None:
        return []
    root = folder.resolve()
    source = FolderSource(root, [root], settings.max_picture_bytes)
    found = sorted(root / entry.reference for entry in source.entries())
    if not found:
        raise TrainingError("training-plan-invalid", f"there is no picture in {folder}")
    return found
