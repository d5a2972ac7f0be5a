"""Write the figures of docs/speed.md from the last results: python -m docs.figures"""

from pathlib import Path

from benchmarks import extraction, peers, pipeline, query, startup
from docs.tables import Tables, rendered

PAGE = Path(__file__).parent / "speed.md"

FIGURES: Tables = {
    "extraction": extraction.table,
    "startup": startup.table,
    "pipeline": pipeline.table,
    "query": query.table,
    "peers": peers.table,
}

if __name__ == "__main__":
    PAGE.write_text(rendered(PAGE.read_text(), FIGURES))
