"""`pool5 evaluate --advise`."""

from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from service.cli.describing import extractor_of, show_failures, weights_of
from service.cli.options import console, print_json
from service.cli.progress import counted, described
from service.evaluating import page
from service.evaluating.advice import AdviceBody, advice_body
from service.evaluating.advisor import advise, specs
from service.evaluating.album import FolderAlbum
from service.evaluating.report import shown
from service.evaluating.study import truth_of
from service.settings import Settings

ROWS = 10
"""Specs in the table, besides the front; --json and --output have all."""


def advice(
    settings: Settings,
    folder: Path,
    said: str,
    networks: Sequence[str],
    weights: Sequence[str] | None,
    items: int,
    files: tuple[Path | None, Path | None],
    json: bool,
) -> None:
    """Compare what the networks give for a folder, say which spec to use, write page and JSON."""
    album = FolderAlbum(folder, settings.max_picture_bytes)
    truth = truth_of(album, said)
    chosen = weights_of(networks, weights or [])
    extractor = extractor_of(settings, list(specs(networks)), chosen)
    with (
        counted(f"describing {escape(truth.name)}") as (describing, task),
        counted("comparing specs") as (comparing, compared),
    ):
        found = advise(
            extractor,
            album,
            truth,
            items=items,
            threads=settings.decode_threads,
            batch_size=settings.batch_size,
            describing=described(describing, task),
            comparing=lambda done: comparing.update(compared, completed=done),
        )
    body = advice_body(found, str(folder), chosen)
    report, output = files
    if output:
        output.write_text(body.model_dump_json(indent=1), encoding="utf-8")
    if report:
        report.write_text(page.render_advice(body), encoding="utf-8")
    if json:
        print_json(body)
    else:
        _show(body)


def _show(advice: AdviceBody) -> None:
    title = f"{advice.name}: {advice.queries} queries, {advice.pictures} pictures"
    table = Table("spec", "dim", box=None, title=Text(title))
    for column in ("mAP", "ms/query", "bytes/item", "front"):
        table.add_column(column, justify="right", no_wrap=True)
    for rank, row in enumerate(advice.compared):
        if rank < ROWS or row.front or row.spec == advice.chosen:
            style = "bold" if row.spec == advice.chosen else None
            cells = [shown(row.mAP), f"{row.ms_per_query:.1f}", f"{row.bytes_per_item:,}"]
            cells.append("★" if row.front else "")
            table.add_row(row.spec, str(row.dim), *map(Text, cells), style=style)
    console.print(table)
    for sentence in [*advice.said, *(f"  {command}" for command in advice.commands)]:
        console.print(sentence, markup=False, soft_wrap=True)
    show_failures(advice.failed)
