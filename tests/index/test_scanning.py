"""What a search is expected to cost."""

from index.scanning import search_seconds


def test_a_search_costs_by_what_it_reads() -> None:
    small, wide = search_seconds(100_000, 64), search_seconds(100_000, 2_048)
    assert 0 < small < wide < 60
    # Beyond the exact limit a graph is walked, whatever the number of items.
    assert search_seconds(10_000_000, 512) < 100 * search_seconds(100_000, 512)


def test_few_items_are_all_that_is_searched() -> None:
    assert 0 < search_seconds(1, 8) < 1
