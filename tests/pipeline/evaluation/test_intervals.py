"""Intervals over people and seeds, held against the bootstrap over people alone."""

import numpy as np
import pytest

from pipeline.evaluation.intervals import Draws
from pipeline.evaluation.localisation import paired_bootstrap

PEOPLE = 300


def oks_of(seed: int, gain: float = 0.0) -> np.ndarray:
    return np.clip(np.random.default_rng(seed).normal(0.5 + gain, 0.2, PEOPLE), 0, 1)


def test_every_sample_draws_as_many_images_as_there_are() -> None:
    draws = Draws.of_images(50, seed=1, num_samples=400)
    assert draws.weights.shape == (400, 50)
    assert set(draws.weights.sum(axis=1)) == {50}
    assert draws.weights.mean(axis=0) == pytest.approx(1, abs=0.3)
    np.testing.assert_array_equal(draws.weights, Draws.of_images(50, 1, 400).weights)


def test_with_one_seed_it_is_the_paired_bootstrap_over_people() -> None:
    one, other = oks_of(1, 0.03), oks_of(2)
    draws, images = Draws.of_images(PEOPLE, seed=0), np.arange(PEOPLE)
    samples = [(draws.mean_oks(one, images), draws.mean_oks(other, images))]
    found = draws.difference(samples, [(one.mean(), other.mean())])
    expected = paired_bootstrap(one, other, seed=3)
    width = expected.high - expected.low
    assert found.mean == pytest.approx(expected.mean, abs=1e-12)
    assert found.low == pytest.approx(expected.low, abs=0.05 * width)
    assert found.high == pytest.approx(expected.high, abs=0.05 * width)


def test_seeds_that_disagree_widen_the_interval() -> None:
    one = oks_of(1)
    draws, images = Draws.of_images(PEOPLE, seed=0), np.arange(PEOPLE)
    base = draws.mean_oks(one, images)
    samples = [(base + shift, base) for shift in (-0.1, 0.1)]
    found = draws.difference(samples, [(0.4, 0.5), (0.6, 0.5)])
    assert found.mean == pytest.approx(0, abs=1e-12)
    assert (found.low, found.high) == pytest.approx((-0.1, 0.1))


def test_a_person_without_labels_does_not_count_and_an_image_counts_with_all_its_people() -> None:
    draws = Draws(np.array([[2, 0], [1, 1], [0, 2]]), 0)
    oks = np.array([0.2, 0.6, np.nan, 1.0])
    found = draws.mean_oks(oks, np.array([0, 0, 1, 1]))
    np.testing.assert_allclose(found, [0.4, 0.6, 1.0])
