"""`pool5 evaluate`."""

from json import dumps
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from index import Expansion, Reranking
from index.evaluation import Refinement
from index.ranking.reranking import METHODS
from models import Limits, parse
from service import logs
from service.cli.advise import advice
from service.cli.describing import extractor_of, show_failures, weights_of
from service.cli.options import Json, console, json_of, print_json, status, takes_settings
from service.cli.progress import counted, described
from service.engine import Engine, weights_folder
from service.evaluating import page
from service.evaluating.album import FolderAlbum
from service.evaluating.report import DifferenceBody, Report, WeightsBody, report_of, shown
from service.evaluating.study import (
    FOLDERS,
    Study,
    refined,
    study_collection,
    study_folder,
    truth_of,
)
from service.evaluating.weighing import check_weighable, weigh
from service.forms import validated
from service.problems import Problem
from service.schemas.search import SearchOptions
from service.settings import Settings


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
    rerank: Annotated[
        str | None,
        typer.Option(
            metavar="METHOD_OR_JSON",
            help=f"measure also re-ranked: {', '.join(METHODS)}, or JSON with parameters",
        ),
    ] = None,
    expansion: Annotated[
        str | None,
        typer.Option(
            metavar="JSON", help='measure also with the query expanded: {"n": 3, "alpha": 3}'
        ),
    ] = None,
    advise: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="say which spec to use for pictures like these"),
    ] = None,
    compare: Annotated[
        list[str] | None,
        typer.Option("--network", help="network to compare, with --advise; again for several"),
    ] = None,
    items: Annotated[
        int, typer.Option(min=1, help="how many a collection will hold, with --advise")
    ] = 100_000,
    report: Annotated[Path | None, typer.Option(help="write a page with plots, .html")] = None,
    output: Annotated[Path | None, typer.Option(help="write all numbers, .json")] = None,
    json: Json = False,
) -> None:
    """Measure how well descriptors retrieve: mAP, mP@k, recall@k, with confidence intervals."""
    logs.configure(settings.log_format, level=40)
    _check_folders(report, output)
    refinement = _refinement(rerank, expansion)
    if advise and not (pictures or spec or collection or space or learn_weights or refinement):
        networks = list(dict.fromkeys(compare or [settings.network]))
        advice(settings, advise, truth, networks, weights, items, (report, output), json)
        return
    if advise or compare:
        raise Problem(
            "evaluation-unclear",
            "give --advise FOLDER with --network, and neither PICTURES, --spec, --collection, "
            "--learn-weights, --rerank nor --expansion",
        )
    if collection and not (pictures or spec):
        study = _of_collection(settings, collection, label, space)
    elif pictures and not (collection or space):
        study = _of_folder(settings, pictures, truth, spec or [], weights or [], learn_weights)
    else:
        raise Problem("evaluation-unclear", "give PICTURES with --spec, or --collection")
    if refinement:
        with status.status("re-ranking"):
            study = refined(study, refinement)
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


def _refinement(rerank: str | None, expansion: str | None) -> Refinement | None:
    """As a search reads the same words."""
    given: dict[str, Any] = {}
    if rerank is not None:
        given["rerank"] = json_of("rerank", rerank) if rerank.startswith("{") else rerank
    if expansion is not None:
        given["expansion"] = json_of("expansion", expansion)
    options = validated(SearchOptions, given)
    if options.rerank is None and options.expansion is None:
        return None
    return Refinement(
        expansion=Expansion(**options.expansion.model_dump()) if options.expansion else None,
        rerank=None if options.rerank is None else Reranking.of(options.rerank),
    )


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
    if not specs:
        choice = weights_of([settings.network], weights)[settings.network]
        specs = [weights_folder(settings).resolve(settings.network, choice).best_spec]
    canonical = list(dict.fromkeys(str(parse(text)) for text in specs))
    if weighed:
        check_weighable(canonical, truth)
    networks = [parse(text).network for text in canonical]
    extractor = extractor_of(settings, canonical, weights_of(networks, weights))
    with counted(f"describing {escape(truth.name)}") as (progress, task):
        return study_folder(
            extractor,
            album,
            truth,
            threads=settings.decode_threads,
            batch_size=settings.batch_size,
            progress=described(progress, task),
        )


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
            table.add_row(spec.spec, str(spec.dim), *named, Text(shown(first)), *means)
    console.print(table)
    for found in report.differences:
        console.print(_difference(report, found, several), markup=False)
    if report.weights:
        console.print(_learned(report.weights), markup=False, soft_wrap=True)
    show_failures(report.failed)


def _difference(report: Report, found: DifferenceBody, several: bool) -> str:
    a, b = report.specs[found.a].spec, report.specs[found.b].spec
    variant = f", {found.variant}" if several else ""
    return f"{b} − {a}{variant}: {found.measure} {shown(found.difference, '+')}, {_p(found.p)}"


def _learned(found: WeightsBody) -> str:
    return (
        f'"space": {dumps(found.space)}\nlearned from {found.items} pictures; on classes held out '
        f"mAP {found.learned:.3f}, {shown(found.gain, '+')} beyond the best single space, "
        f"{_p(found.p)}"
    )


def _p(p: float) -> str:
    return f"p = {p:.3f}" if p >= 0.001 else "p < 0.001"
