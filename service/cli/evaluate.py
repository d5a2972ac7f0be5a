"""`pool5 evaluate`."""

from json import dumps
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from models import Extractor, Limits, SpecError, WhiteningFolder, parse
from service import logs
from service.cli.options import Json, console, print_json, status, takes_settings
from service.cli.progress import counted, transferred
from service.engine import Engine, weights_folder
from service.evaluating import page
from service.evaluating.album import FolderAlbum
from service.evaluating.report import (
    DifferenceBody,
    IntervalBody,
    Report,
    WeightsBody,
    report_of,
)
from service.evaluating.study import FOLDERS, Study, study_collection, study_folder, truth_of
from service.evaluating.weighing import check_weighable, weigh
from service.problems import Problem
from service.settings import Settings

SHOWN_FAILURES = 10


@takes_settings(
    "data",
    "device",
    "weights_dir",
    "weights_mirror",
    "offline",
    "decode_threads",
    "batch_size",
    "max_picture_bytes",
    "max_pixels",
)
def evaluate(
    settings: Settings,
    pictures: Annotated[Path | None, typer.Argument(help="folder of pictures")] = None,
    spec: Annotated[
        list[str] | None, typer.Option(help="descriptor spec; give it again to compare several")
    ] = None,
    weights: Annotated[
        list[str] | None, typer.Option(help="weights of all networks, or NETWORK=WEIGHTS of one")
    ] = None,
    truth: Annotated[
        str,
        typer.Option(help="folders, ukbench, holidays, or a file: .json, gnd_….pkl, gnd_….mat"),
    ] = FOLDERS,
    collection: Annotated[
        str | None, typer.Option(help="evaluate a collection's descriptors instead")
    ] = None,
    label: Annotated[
        str, typer.Option(help="member of the items' metadata that labels them, with --collection")
    ] = "folder",
    space: Annotated[
        list[str] | None, typer.Option(help="space, with --collection; by default all")
    ] = None,
    learn_weights: Annotated[
        bool, typer.Option("--learn-weights", help="learn weights over the specs, from labels")
    ] = False,
    report: Annotated[Path | None, typer.Option(help="write a page with plots, .html")] = None,
    output: Annotated[Path | None, typer.Option(help="write all numbers, .json")] = None,
    json: Json = False,
) -> None:
    """Measure how well descriptors retrieve: mAP, mP@k, recall@k, with confidence intervals."""
    logs.configure(settings.log_format, level=40)
    _check_folders(report, output)
    if collection and not (pictures or spec):
        study = _of_collection(settings, collection, label, space)
    elif pictures and not (collection or space):
        study = _of_folder(
            settings, pictures, truth, spec or ["alexnet/high"], weights or ["auto"], learn_weights
        )
    else:
        raise Problem("evaluation-unclear", "give PICTURES with --spec, or --collection")
    learned = None
    if learn_weights:
        with status.status("learning weights"):
            learned = weigh(study)
    found = report_of(study, learned)
    if output:
        output.write_text(found.model_dump_json(indent=1), encoding="utf-8")
    if report:
        limits = Limits(settings.max_picture_bytes, settings.max_pixels, settings.max_frames)
        report.write_text(page.render(study, found, limits), encoding="utf-8")
    if json:
        print_json(found)
    else:
        _show(found)


def _check_folders(*files: Path | None) -> None:
    """Say now what would otherwise be said after an hour of work."""
    for file in files:
        if file and not file.absolute().parent.is_dir():
            raise FileNotFoundError(2, "No such folder to write to", str(file.parent))


def _of_folder(
    settings: Settings,
    folder: Path,
    said: str,
    specs: list[str],
    weights: list[str],
    weighed: bool,
) -> Study:
    album = FolderAlbum(folder, settings.max_picture_bytes)
    truth = truth_of(album, said)
    canonical = list(dict.fromkeys(str(parse(text)) for text in specs))
    if weighed:
        check_weighable(canonical, truth)
    with transferred("downloading weights") as downloading:
        extractor = Extractor(
            {text: text for text in canonical},
            weights=_weights(canonical, weights),
            folder=weights_folder(settings, downloading),
            whitenings=WhiteningFolder(settings.data / "whitenings"),
            device=settings.device,
            limits=Limits(settings.max_picture_bytes, settings.max_pixels, settings.max_frames),
        )
    for notice in extractor.notices:
        status.print(notice, markup=False)
    with counted(f"describing {escape(truth.name)}") as (progress, task):
        return study_folder(
            extractor,
            album,
            truth,
            threads=settings.decode_threads,
            batch_size=settings.batch_size,
            progress=lambda done, total, failed: progress.update(
                task, completed=done, total=total, remark=f"{failed} failed" if failed else ""
            ),
        )


def _weights(specs: list[str], given: list[str]) -> dict[str, str]:
    """Weights by network; what names no network is for all the others."""
    networks = [parse(text).network for text in specs]
    named = dict(choice.split("=", 1) for choice in given if "=" in choice)
    rest = [choice for choice in given if "=" not in choice]
    if len(rest) > 1 or not named.keys() <= set(networks):
        raise SpecError(
            "spec-weights-unclear",
            f"--weights {', '.join(given)}: give one for all networks, and others as "
            f"NETWORK=WEIGHTS for {', '.join(dict.fromkeys(networks))}",
        )
    return dict.fromkeys(networks, rest[0] if rest else "auto") | named


def _of_collection(settings: Settings, name: str, label: str, spaces: list[str] | None) -> Study:
    with Engine(settings) as engine, status.status(f"evaluating {escape(name)}"):
        return study_collection(engine.catalog.collection(name), label, spaces)


def _show(report: Report) -> None:
    several = len(report.set.variants) > 1
    title = f"{report.set.name}: {report.set.queries} queries, {report.set.pictures} pictures"
    table = Table("spec", "dim", *(["protocol"] if several else []), box=None, title=Text(title))
    for measure in report.set.measures:
        table.add_column(measure, justify="right", no_wrap=True)
    for spec in report.specs:
        for variant, result in spec.variants.items():
            first, *others = (result.measures[name] for name in report.set.measures)
            means = [f"{found.mean:.3f}" for found in others]
            named = [Text(variant)] if several else []
            table.add_row(spec.spec, str(spec.dim), *named, Text(_interval(first)), *means)
    console.print(table)
    for found in report.differences:
        console.print(_difference(report, found, several), markup=False)
    if report.weights:
        console.print(_learned(report.weights), markup=False, soft_wrap=True)
    if report.failed:
        status.print(f"{len(report.failed)} pictures are left out")
    for failure in report.failed[:SHOWN_FAILURES]:
        status.print(f"  {failure.name}: {failure.detail} ({failure.code})", markup=False)


def _difference(report: Report, found: DifferenceBody, several: bool) -> str:
    a, b = report.specs[found.a].spec, report.specs[found.b].spec
    variant = f", {found.variant}" if several else ""
    return f"{b} − {a}{variant}: {found.measure} {_interval(found.difference, '+')}, {_p(found.p)}"


def _learned(found: WeightsBody) -> str:
    return (
        f'"space": {dumps(found.space)}\nlearned from {found.items} pictures; on classes held out '
        f"mAP {found.learned:.3f}, {_interval(found.gain, '+')} beyond the best single space, "
        f"{_p(found.p)}"
    )


def _p(p: float) -> str:
    return f"p = {p:.3f}" if p >= 0.001 else "p < 0.001"


def _interval(found: IntervalBody, sign: str = "") -> str:
    return f"{found.mean:{sign}.3f} [{found.low:{sign}.3f}, {found.high:{sign}.3f}]"
