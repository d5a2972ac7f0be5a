import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from index import CollectionError
from index.item import Vector
from index.ranking import fusion
from index.ranking.learning import learn_weights, sample
from tests.index.evaluation import plainly
from tests.index.making import units

CLASSES, EACH = 6, 5
LABELS = [f"c{n // EACH}" for n in range(CLASSES * EACH)]


def _space(seed: int, noise: float, told_apart: range) -> Vector:
    """Descriptors (n, 16) that gather by class, in the classes of `told_apart` alone."""
    rng = np.random.default_rng(seed)
    centres = units(seed + 1, CLASSES)
    shared = units(seed + 2, 1)[0]
    rows = [
        (centres[n // EACH] if n // EACH in told_apart else shared)
        + noise * rng.standard_normal(16)
        for n in range(len(LABELS))
    ]
    unit = np.array(rows) / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit.astype(np.float32)


def _map(descriptors: dict[str, Vector], weights: dict[str, float]) -> float:
    return float(_precisions(descriptors, weights).mean())


def _precisions(descriptors: dict[str, Vector], weights: dict[str, float]) -> np.ndarray:
    """Average precisions, each item asking the others."""
    precisions = []
    for query in range(len(LABELS)):
        scores = sum(
            w * descriptors[name] @ descriptors[name][query] for name, w in weights.items()
        )
        order = [at for at in np.argsort(-scores, kind="stable") if at != query]
        alike = [rank for rank, at in enumerate(order) if LABELS[at] == LABELS[query]]
        precisions.append(plainly.trapezoids(alike))
    return np.array(precisions)


def test_weights_are_as_good_as_the_best_of_a_fine_grid() -> None:
    spaces = {
        "low": _space(1, 0.35, range(3)),
        "mid": _space(4, 0.5, range(1, 5)),
        "high": _space(8, 0.35, range(3, 6)),
    }
    learned = learn_weights(spaces, LABELS)
    steps = [share / 20 for share in range(21)]
    grid = max(
        _map(spaces, dict(zip(spaces, weights, strict=True)))
        for weights in itertools.product(steps, repeat=3)
        if sum(weights) == pytest.approx(1)
    )
    assert learned.mean_ap >= grid - 0.01
    assert learned.mean_ap == pytest.approx(_map(spaces, learned.weights), abs=1e-4)
    assert sum(learned.weights.values()) == pytest.approx(1)
    assert fusion.weights(learned.weights) == pytest.approx(learned.weights)


def test_spaces_that_complete_each_other_gain_on_classes_never_seen() -> None:
    spaces = {"low": _space(1, 0.3, range(3)), "high": _space(8, 0.3, range(3, 6))}
    learned = learn_weights(spaces, LABELS)
    assert learned.weights.keys() == spaces.keys()
    assert learned.gain > 0.1
    assert learned.held_out.shape == learned.single.shape == learned.even.shape == (len(LABELS),)


def test_noise_gets_no_weight() -> None:
    spaces = {"good": _space(1, 0.05, range(6)), "noise": units(9, len(LABELS))}
    learned = learn_weights(spaces, LABELS)
    assert learned.weights == {"good": 1.0}
    assert learned.gain == pytest.approx(0)


def test_a_held_out_class_is_judged_by_weights_that_never_saw_it() -> None:
    """Only `special` tells classes 0 and 5, one fold, apart; the others need nothing but `good`."""
    spaces = {
        "good": _space(1, 0.02, range(1, 5)),
        "special": np.roll(_space(8, 0.3, range(2)), EACH, axis=0),
    }
    spaces["special"][:EACH], spaces["special"][-EACH:] = units(3, 2)[:1], units(3, 2)[1:]
    learned = learn_weights(spaces, LABELS)
    assert learned.weights.keys() == spaces.keys()
    assert learned.mean_ap == pytest.approx(1)
    alone = _precisions(spaces, {"good": 1.0})
    fold = [at for at, label in enumerate(LABELS) if label in ("c0", "c5")]
    assert learned.held_out[fold] == pytest.approx(alone[fold])
    assert alone[fold].mean() < 0.9


def test_items_alone_under_their_label_distract_but_do_not_ask() -> None:
    labels = [*LABELS[:-1], "alone"]
    learned = learn_weights({"good": _space(1, 0.3, range(6))}, labels)
    assert np.isnan(learned.held_out).tolist() == [False] * (len(labels) - 1) + [True]
    assert learned.weights == {"good": 1.0}


def test_what_is_not_labelled_distracts_and_does_not_ask() -> None:
    labels = [*LABELS[:-2], "alone", "too"]
    spaces = {"good": _space(1, 0.3, range(6)), "noise": units(9, len(labels))}
    unlabelled = learn_weights(spaces, [*LABELS[:-2], None, None])
    alone = learn_weights(spaces, labels)
    np.testing.assert_array_equal(unlabelled.held_out, alone.held_out)
    assert unlabelled.weights == alone.weights


@given(
    st.lists(st.none() | st.integers(0, 30), max_size=120),
    st.integers(4, 80),
    st.integers(0, 3),
)
def test_a_sample_is_of_classes_that_can_be_learned_from(
    labels: list[int | None], most: int, seed: int
) -> None:
    drawn = sample(labels, most, seed)
    assert drawn.size <= most
    assert (np.diff(drawn) > 0).all()
    if len(labels) <= most:
        assert drawn.tolist() == list(range(len(labels)))
    counts = Counter(label for label in labels if label is not None)
    classes = sum(count > 1 for count in counts.values())
    if classes:
        inside = Counter(labels[at] for at in drawn if labels[at] is not None)
        assert max(inside.values()) > 1


def test_a_sample_of_two_large_classes_is_of_both() -> None:
    drawn = sample([n % 2 for n in range(5_000)], 100)
    assert np.bincount(drawn % 2).tolist() == [50, 50]


@pytest.mark.parametrize(
    ("rows", "labels", "said"),
    [
        (3, ["a", "a"], "2 labels for {'high': 3} descriptors"),
        (2, ["a", "a"], "two labels or more"),
        (4, ["a", "a", "b", "c"], "two labels or more"),
        (0, [], "two labels or more"),
    ],
)
def test_labels_that_nothing_can_be_learned_from_are_refused(
    rows: int, labels: list[str], said: str
) -> None:
    with pytest.raises(CollectionError) as refused:
        learn_weights({"high": units(1, rows)}, labels)
    assert refused.value.code == "labels-invalid"
    assert said in str(refused.value)
