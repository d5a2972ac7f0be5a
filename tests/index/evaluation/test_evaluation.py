"""Whole evaluations against plain loops over every pair."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index import CollectionError
from index.evaluation import (
    GroundTruth,
    Judgement,
    Query,
    by_labels,
    evaluate,
    leave_one_out,
    measured,
    ranking,
    rankings,
)
from index.item import Vector
from tests.index.evaluation import plainly
from tests.index.making import units


def plain_leave_one_out(descriptors: Vector, labels: list[str]) -> dict[str, float]:
    """Means over the queries that have another picture of their label."""
    found: dict[str, list[float]] = {"mAP": [], "mAP-steps": [], "mP@5": [], "recall@10": []}
    for query in range(len(labels)):
        others = [other for other in range(len(labels)) if other != query]
        scores = {other: float(descriptors[query] @ descriptors[other]) for other in others}
        order = sorted(others, key=lambda other: (-scores[other], other))
        ranks = [rank for rank, other in enumerate(order) if labels[other] == labels[query]]
        if ranks:
            found["mAP"].append(plainly.trapezoids(ranks))
            found["mAP-steps"].append(plainly.steps(ranks))
            found["mP@5"].append(plainly.precision(ranks, 5))
            found["recall@10"].append(plainly.recall(ranks, 10))
    return {name: sum(values) / len(values) for name, values in found.items()}


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(4, 40), st.integers(1, 5))
def test_leave_one_out_is_the_plain_loop(seed: int, n: int, classes: int) -> None:
    random = np.random.default_rng(seed)
    # Few whole numbers: many scores are equal, and all are exact.
    descriptors = random.integers(-2, 3, (n, 3)).astype(np.float32)
    labels = [str(label) for label in random.integers(0, classes, n)]
    labels[:2] = ["pair", "pair"]
    evaluation = leave_one_out(descriptors, labels)
    for name, mean in plain_leave_one_out(descriptors, labels).items():
        assert evaluation.mean(name) == pytest.approx(mean, abs=1e-9)


def test_a_label_that_one_picture_has_is_left_out() -> None:
    evaluation = leave_one_out(units(0, 5), ["a", "b", "a", "c", "a"])
    assert evaluation.queries.tolist() == [0, 2, 4]
    assert evaluation.left_out == 2


def test_easy_medium_and_hard_differ_only_in_what_is_junk() -> None:
    easy, hard, junk = np.array([0, 5]), np.array([2]), np.array([1])
    judged = {
        "easy": Judgement(easy, np.append(junk, hard)),
        "medium": Judgement(np.append(easy, hard), junk),
        "hard": Judgement(hard, np.append(junk, easy)),
    }
    names = [str(n) for n in range(8)]
    truth = GroundTruth("rehearsal", names, [Query("q", judged)], ("mAP",))
    found = measured([np.arange(8)], truth)
    # 0 e, 1 j, 2 h, 5 e  ->  easy: 0, 3   medium: 0, 1, 4   hard: 0
    assert found["easy"].mean() == pytest.approx(plainly.trapezoids([0, 3]))
    assert found["medium"].mean() == pytest.approx(plainly.trapezoids([0, 1, 4]))
    assert found["hard"].mean() == 1


def test_memory_is_bounded_and_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(3)
    descriptors = random.integers(-3, 4, (30, 4)).astype(np.float32)
    whole = [order.tolist() for order in rankings(descriptors, descriptors)]
    monkeypatch.setattr(ranking, "BYTES_AT_ONCE", 4 * 30 * 7)
    assert [order.tolist() for order in rankings(descriptors, descriptors)] == whole
    for query, order in enumerate(whole):
        scores = descriptors @ descriptors[query]
        assert order == sorted(range(30), key=lambda other: (-scores[other], other))


def test_intervals_hold_the_mean_and_better_descriptors_are_significantly_better() -> None:
    labels = [str(n % 6) for n in range(60)]
    centres, noise = units(1, 6), units(2, 60)
    good = np.stack([centres[n % 6] + 0.5 * noise[n] for n in range(60)]).astype(np.float32)
    better, worse = leave_one_out(good, labels), leave_one_out(units(3, 60), labels)
    for evaluation in (better, worse):
        for name, interval in evaluation.intervals.items():
            assert interval.mean == pytest.approx(evaluation.values[name].mean())
            assert interval.low <= interval.mean <= interval.high
    difference = worse.against(better)
    assert difference.interval.low > 0
    assert difference.p < 0.001
    assert difference.interval.mean == pytest.approx(better.mean() - worse.mean())


def test_what_cannot_be_measured_is_refused() -> None:
    descriptors = units(0, 4)
    labels = ["a", "a", "b", "b"]
    with pytest.raises(CollectionError, match="full rankings"):
        measured([np.arange(3)] * 4, by_labels("few", list("wxyz"), labels))
    with pytest.raises(CollectionError, match="3 rankings for 4 queries"):
        measured([np.arange(4)] * 3, by_labels("few", list("wxyz"), labels))
    with pytest.raises(CollectionError, match="at least two pictures of a label"):
        leave_one_out(descriptors, ["a", "b", "c", "d"])
    with pytest.raises(CollectionError, match="3 descriptors for 4"):
        leave_one_out(descriptors[:3], labels)
    descriptors[2, 1] = np.nan
    with pytest.raises(CollectionError, match=r"queries\[2\] is not finite"):
        leave_one_out(descriptors, labels)
    two, three = leave_one_out(units(0, 4), labels), leave_one_out(units(0, 4), ["a", "a", "a", ""])
    with pytest.raises(CollectionError, match="same queries"):
        two.against(three)


def test_pictures_that_are_gone_are_taken_out_of_the_truth() -> None:
    truth = by_labels("five", list("abcde"), ["x", "x", "y", "x", None])
    gone = np.array([True, False, True, True, True])
    left = truth.restricted(gone, gone[:4])
    assert list(left.gallery) == ["a", "c", "d", "e"]
    assert [query.name for query in left.queries] == ["a", "c", "d"]
    judged = [query.judged["all"] for query in left.queries]
    assert [judgement.positives.tolist() for judgement in judged] == [[0, 2], [1], [0, 2]]
    assert [judgement.junk.tolist() for judgement in judged] == [[0], [1], [2]]
    assert judged[0].positives is judged[2].positives
    descriptors = units(0, 5)
    found = evaluate(descriptors[gone][:3], descriptors[gone], left)["all"]
    assert found.queries.tolist() == [0, 2]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spec", "images", "expected", "at_5"),
    [
        ("squeezenet1_1/features.12/spoc", "clothing", 0.260, 0.368),
        ("squeezenet1_1/features.12/spoc", "packages", 0.573, 0.581),
        ("mobilenet_v2/features.18/spoc", "packages", 0.477, 0.503),
    ],
)
def test_baselines_of_real_pictures_are_met(
    shared_images: Path, shared_weights: Path, spec: str, images: str, expected: float, at_5: float
) -> None:
    from models import Extractor, WeightsFolder

    files = sorted((shared_images / images).glob("*/*.jpg"))
    weights = f"{spec.split('/')[0]}.pth"
    extractor = Extractor(spec, weights=weights, folder=WeightsFolder(shared_weights), device="cpu")
    descriptors = np.asarray(extractor.describe(files))
    evaluation = leave_one_out(descriptors, [file.parent.name for file in files])
    assert evaluation.mean("mAP-steps") == pytest.approx(expected, abs=0.002)
    # Pixels that differ by one level exchange a few neighbours that are as near.
    assert evaluation.mean("mP@5") == pytest.approx(at_5, abs=0.004)
