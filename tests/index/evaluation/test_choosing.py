"""Choosing among specs, against what can be reasoned by hand and simulated."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from index.evaluation import by_labels
from index.evaluation.choosing import choose, front, groups_of, held_out


def noisy(means: list[float], noise: float, queries: int = 200, seed: int = 3) -> np.ndarray:
    random = np.random.default_rng(seed)
    return np.array(means)[:, None] + noise * random.standard_normal((len(means), queries))


def test_what_is_clearly_better_is_chosen_at_any_cost() -> None:
    found = choose(noisy([0.3, 0.6, 0.5], 0.05), np.array([1.0, 1000.0, 2.0]))
    assert (found.best, found.chosen) == (1, 1)


def test_what_cannot_be_told_apart_is_chosen_by_its_cost() -> None:
    values = noisy([0.5, 0.5, 0.5, 0.2], 0.05)
    values[0] += 0.001
    found = choose(values, np.array([9.0, 5.0, 7.0, 1.0]))
    assert found.chosen == 1


def test_a_tie_on_every_query_goes_to_the_cheaper() -> None:
    values = np.tile(np.linspace(0, 1, 30), (2, 1))
    assert choose(values, np.array([2.0, 1.0])).chosen == 1


def test_costs_that_are_nearly_the_same_are_the_same() -> None:
    values = noisy([0.5, 0.52, 0.5], 0.2)
    means = values.mean(axis=1)
    found = choose(values, np.array([1.05, 1.0, 1.02]))
    assert found.chosen == int(means.argmax())


@given(
    arrays(float, (6, 12), elements=st.floats(0, 1)),
    arrays(float, 6, elements=st.floats(0.1, 100)),
)
def test_the_chosen_one_never_costs_much_more_than_the_best(
    values: np.ndarray, costs: np.ndarray
) -> None:
    found = choose(values, costs, resamples=200)
    assert values.mean(axis=1)[found.best] == values.mean(axis=1).max()
    assert costs[found.chosen] <= 1.1 * costs[found.best]


def test_the_luck_of_a_winner_is_not_in_the_held_out_estimate() -> None:
    """Fifty specs of the same worth: the highest mean is above it, the held-out one is not."""
    winners, estimates = [], []
    for seed in range(15):
        values = noisy([0.5] * 50, 0.3, queries=60, seed=seed)
        groups = np.arange(60) // 6
        winners.append(values.mean(axis=1).max())
        # All cost alike, so that the most accurate is chosen.
        estimates.append(held_out(values, np.ones(50), groups).mean())
    assert np.mean(winners) > 0.56
    assert abs(np.mean(estimates) - 0.5) < 0.03


def test_a_query_is_measured_by_a_choice_without_its_group() -> None:
    # Spec 0 is perfect on group 7 and useless elsewhere, spec 1 is fair on all.
    groups = np.array([7, 7, 3, 3, 5, 5])
    values = np.array([[1.0, 1.0, 0.0, 0.0, 0.0, 0.0], [0.6] * 6])
    np.testing.assert_allclose(held_out(values, np.ones(2), groups), 0.6)


def test_groups_are_the_classes_of_leave_one_out() -> None:
    truth = by_labels("t", ["a", "b", "c", "d"], ["x", "y", "x", "y"])
    assert groups_of(truth, "all").tolist() == [0, 1, 0, 1]


@given(
    arrays(float, 8, elements=st.sampled_from([0.1, 0.2, 0.3])),
    arrays(float, (8, 2), elements=st.sampled_from([1.0, 2.0, 3.0])),
)
def test_the_front_is_what_nothing_dominates(accuracy: np.ndarray, costs: np.ndarray) -> None:
    found = front(accuracy, costs)
    for one in range(8):
        beaten = any(
            accuracy[other] >= accuracy[one]
            and all(costs[other] <= costs[one])
            and (accuracy[other] > accuracy[one] or any(costs[other] < costs[one]))
            for other in range(8)
        )
        assert found[one] == (not beaten)
