"""What a search is expected to cost."""

import pytest

from index import scanning
from index.scanning import NUMBERS, READ_BY_APPROXIMATE, exact_seconds, search_seconds


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that takes a nanosecond for every number, whatever else it does."""
    monkeypatch.setattr(scanning, "exact_seconds", lambda count, dim, _: count * dim * 1e-9)


@pytest.mark.usefixtures("steady")
def test_an_exact_search_reads_every_item() -> None:
    assert search_seconds(1_000, 64) == pytest.approx(64_000e-9)
    # More than the sample holds: as many times the sample as there are items.
    assert search_seconds(40_000, 2_048) == pytest.approx(40_000 * 2_048e-9, rel=1e-3)
    assert NUMBERS < 40_000 * 2_048


@pytest.mark.usefixtures("steady")
def test_beyond_the_exact_limit_a_graph_is_walked_whatever_the_number_of_items() -> None:
    found = search_seconds(10_000_000, 2_048)
    assert found == search_seconds(1_000_000, 2_048)
    assert found == pytest.approx(READ_BY_APPROXIMATE * 2_048e-9, rel=1e-3)


def test_the_clock_gives_a_time() -> None:
    assert 0 < exact_seconds(10, 8, "float16") < 60
