"""Write the tables of docs/operations.md that follow from the code: python -m docs.tables

Metrics as a real service exports them, problem codes as `service.problems` and `service.remedies`
know them. A test compares.
"""

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from prometheus_client.core import Metric

from service.engine import Engine
from service.problems import status_of
from service.remedies import REMEDIES
from service.settings import Settings

Tables = Mapping[str, Callable[[], str]]

PAGE = Path(__file__).parent / "operations.md"

COMMAND_LINE = ("evaluation-", "truth-", "training-", "restore-", "import-", "export-")
"""What begins so is said by a command only, with exit status 2."""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def metrics() -> str:
    """Every metric: name, type, labels, meaning."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        with Engine(
            Settings(data=data, offline=True, device="cpu", weights_dir=data / "weights")
        ) as engine:
            collection = engine.ensure_default()
            engine.extractor(collection)
            families = sorted(engine.metrics.registry.collect(), key=lambda family: family.name)
            labels = {family.name: _labels(family, engine) for family in families}
    return _table(
        ["metric", "type", "labels", "is"],
        [
            [
                f"`{family.name}{'_total' if family.type == 'counter' else ''}`",
                family.type,
                ", ".join(labels[family.name]),
                family.documentation,
            ]
            for family in families
        ],
    )


def _labels(family: Metric, engine: Engine) -> Sequence[str]:
    collectors = engine.metrics.registry._names_to_collectors
    declared = getattr(collectors.get(family.name), "_labelnames", ())
    seen = family.samples[0].labels if family.samples else {}
    return declared or [name for name in seen if name != "le"]


def problems() -> str:
    """Every problem code: status, remedy."""
    return _table(
        ["code", "status", "what to do"],
        [
            [f"`{code}`", "–" if code.startswith(COMMAND_LINE) else str(status_of(code)), remedy]
            for code, remedy in sorted(REMEDIES.items())
        ],
    )


TABLES: Tables = {"metrics": metrics, "problems": problems}


def rendered(text: str, tables: Tables) -> str:
    """A page with its tables, each between `<!-- NAME -->` and `<!-- end -->`, made anew."""
    for name, table in tables.items():
        before, _, rest = text.partition(f"<!-- {name} -->\n")
        _, _, after = rest.partition("<!-- end -->\n")
        text = f"{before}<!-- {name} -->\n{table().rstrip()}\n<!-- end -->\n{after}"
    return text


if __name__ == "__main__":
    PAGE.write_text(rendered(PAGE.read_text(), TABLES))
