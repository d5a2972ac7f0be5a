"""The protocol once more, in plain loops: what the tests compare with."""

from collections.abc import Collection, Sequence


def lowered(ranking: Sequence[int], positives: Collection[int], junk: Collection[int]) -> list[int]:
    """Walk down the ranking, passing over junk, and note where positives stand."""
    ranks, rank = [], 0
    for picture in ranking:
        if picture in junk:
            continue
        if picture in positives:
            ranks.append(rank)
        rank += 1
    return ranks


def trapezoids(ranks: Sequence[int]) -> float:
    """Area under precision over recall, each step as a trapezoid."""
    area = 0.0
    for found, rank in enumerate(ranks):
        before = found / rank if rank else 1.0
        after = (found + 1) / (rank + 1)
        area += (before + after) / 2 / len(ranks)
    return area


def steps(ranks: Sequence[int]) -> float:
    return sum((found + 1) / (rank + 1) for found, rank in enumerate(ranks)) / len(ranks)


def precision(ranks: Sequence[int], k: int) -> float:
    depth = min(max(ranks) + 1, k)
    return sum(rank < depth for rank in ranks) / depth


def recall(ranks: Sequence[int], k: int) -> float:
    return sum(rank < k for rank in ranks) / len(ranks)
