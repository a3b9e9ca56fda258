"""What targets add to a loader is measured over processes, as each has its own luck with memory."""

from typing import Any

import pytest

from pipeline.benchmarks.processes import measure_loader
from stages.cache_teacher import cache_teacher


@pytest.mark.slow
def test_a_loader_is_measured_in_processes_of_its_own(inputs: Any) -> None:
    cache_teacher(inputs.config())
    found = measure_loader(inputs.store, inputs.images, 3, num_batches=2, batch_size=4)
    assert len(set(found.ratios)) == 3
    assert found.ratio == sorted(found.ratios)[1]
    assert all(0.3 < ratio < 30 for ratio in found.ratios)  # reading a tiny store costs much
    assert found.without_targets > 0
