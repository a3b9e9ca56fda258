"""The size of the heatmaps of a batch, whose cells a student's sigmas are measured in."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from pipeline.training.settings import CarriedViewSettings, FreshViewSettings, ReplayedViewSettings
from pipeline.training.sources import FreshViews
from pipeline.training.store_sources import CarriedViews, ReplayedViews

ROWS = np.arange(3)
STORE = cast(Any, SimpleNamespace(heatmap_size_hw=(96, 72), optional=SimpleNamespace(tokens=None)))
NOBODY = cast(Any, None)


def test_replayed_heatmaps_have_the_stores_size_and_carried_ones_the_views_aspect() -> None:
    replayed = ReplayedViews(STORE, NOBODY, ReplayedViewSettings(), None, frozenset(), ROWS, 0)
    assert replayed.heatmap_size_hw((128, 96)) == (96, 72)
    carried = CarriedViews(STORE, NOBODY, CarriedViewSettings(), None, frozenset(), ROWS, 0)
    assert carried.heatmap_size_hw((128, 96)) == (96, 72)
    assert carried.heatmap_size_hw((128, 128)) == (96, 96)
    assert carried.token_shape is None


def test_without_a_store_sigmas_are_measured_in_the_cells_of_the_published_heatmaps() -> None:
    fresh = FreshViews(NOBODY, NOBODY, FreshViewSettings(), 0, ROWS)
    assert fresh.heatmap_size_hw((256, 192)) == (64, 48)
    assert fresh.heatmap_size_hw((128, 128)) == (64, 64)
    assert fresh.token_shape is None
