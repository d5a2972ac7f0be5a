"""Intervals and p-values against enumeration, simulation and scipy."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index import CollectionError
from index.evaluation import bootstrap, paired


def test_intervals_are_those_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(5).beta(0.6, 2.0, 80)  # skewed, as average precisions are
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(1)
    ).confidence_interval
    ours = bootstrap(values, resamples=20_000)
    assert ours.low == pytest.approx(theirs.low, abs=0.003)
    assert ours.high == pytest.approx(theirs.high, abs=0.003)


def test_intervals_hold_the_true_mean_as_often_as_they_say() -> None:
    random = np.random.default_rng(11)
    held = 0
    for _ in range(300):
        found = bootstrap(random.beta(1.0, 3.0, 60), level=0.9, resamples=600)
        held += found.low <= 0.25 <= found.high  # the mean of Beta(1, 3) is 1/4
    # Binomial(300, 0.9) is below 251 or above 287 less than once in a thousand.
    assert 251 <= held <= 287


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.random.default_rng(0).random(50)
    assert bootstrap(values) == bootstrap(values)
    assert bootstrap(values) != bootstrap(values, seed=1)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_an_interval_lies_within_the_values(values: list[float]) -> None:
    found = bootstrap(np.array(values), resamples=200)
    assert min(values) - 1e-9 <= found.low <= found.high <= max(values) + 1e-9


def test_equal_values_have_an_interval_without_width() -> None:
    found = bootstrap(np.full(20, 0.1 + 0.2))
    assert found.low == found.mean == found.high


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(-5, 5), min_size=1, max_size=9))
def test_few_queries_are_tested_over_all_signs(differences: list[int]) -> None:
    as_extreme = [
        abs(sum(sign * d for sign, d in zip(signs, differences, strict=True)))
        >= abs(sum(differences))
        for signs in itertools.product((1, -1), repeat=len(differences))
    ]
    found = paired(np.zeros(len(differences)), np.array(differences, float), resamples=1000)
    assert found.p == pytest.approx(sum(as_extreme) / len(as_extreme))


def test_p_values_are_those_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    random = np.random.default_rng(7)
    a = random.random(40)
    b = np.clip(a + random.normal(0.03, 0.1, 40), 0, 1)
    theirs = stats.permutation_test(
        (b - a,), np.mean, permutation_type="samples", n_resamples=20_000, rng=random
    )
    assert paired(a, b, resamples=20_000).p == pytest.approx(theirs.pvalue, abs=0.01)


def test_no_difference_has_p_of_one() -> None:
    a = np.random.default_rng(0).random(30)
    found = paired(a, a)
    assert (found.p, found.interval.low, found.interval.high) == (1, 0, 0)


def test_p_values_are_uniform_where_there_is_nothing_to_find() -> None:
    random = np.random.default_rng(2)
    p_values = [paired(random.random(25), random.random(25), resamples=300).p for _ in range(200)]
    assert 0 < sum(p < 0.1 for p in p_values) / 200 < 0.18  # 0.1 ± 3.8 standard errors


def test_other_queries_are_refused() -> None:
    with pytest.raises(CollectionError) as refused:
        paired(np.zeros(3), np.zeros(4))
    assert refused.value.code == "evaluation-queries-differ"
