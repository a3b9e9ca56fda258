"""What a store keeps of a real teacher is what the teacher says, of both real data sets."""

from typing import Any

import numpy as np
import pytest

from pipeline.coco.image_files import decode_image
from pipeline.frames.crops import warp_crop
from pipeline.settings import TeacherSettings
from pipeline.teacher_store.reader import TeacherStore
from pipeline.teachers import open_teacher
from stages.evaluate import evaluate
from stages.settings.evaluation import EvaluateStore, EvaluateTeacher
from store_schemas.heatmap_codec import dequantise_heatmaps

pytestmark = pytest.mark.shared
ARITHMETIC = 1e-4
"""What the place in a batch may move: heat, and a thousandth of the pixels."""


@pytest.mark.parametrize("data", ["real_coco", "real_lspet"])
def test_stored_views_equal_the_live_teacher_on_the_live_crop(
    data: str, request: pytest.FixtureRequest
) -> None:
    """50 random views of each: heat within the codec's bound, points and peaks as given."""
    real: Any = request.getfixturevalue(data)
    store = TeacherStore.open(real.store)
    chosen = np.random.default_rng(0).permutation(store.status.size)[:50]
    rows, views = np.divmod(chosen, store.num_views)
    stored = store.read(rows, views)
    crops = []
    for row, affine in zip(rows.tolist(), stored.image_to_crop, strict=True):
        name = store.people.image_name[store.people.image_index[row]]
        crops.append(warp_crop(decode_image(real.images / name), affine, store.input_size_hw))
    teacher = open_teacher(real.teacher, TeacherSettings())
    live = teacher.predict_and_decode(np.stack(crops), store.people.skeleton.flip_indices)

    error = np.abs(
        dequantise_heatmaps(stored.heatmaps, stored.scale) - np.maximum(live.heatmaps, 0)
    )
    bound = np.maximum(stored.scale / 2, store.threshold)[..., None, None]
    assert (error <= bound + ARITHMETIC).all()
    np.testing.assert_allclose(stored.confidence, live.confidences, atol=ARITHMETIC)
    np.testing.assert_allclose(stored.keypoints, live.keypoints, atol=1000 * ARITHMETIC)
    # The bound is no wider than it must be: another view's maps break it.
    other = dequantise_heatmaps(
        np.roll(stored.heatmaps, 1, axis=0), np.roll(stored.scale, 1, axis=0)
    )
    assert (np.abs(other - np.maximum(live.heatmaps, 0)) > bound).mean() > 0.01


def test_evaluating_the_store_equals_evaluating_the_teacher(real_coco: Any) -> None:
    """Within 0.001 AP, with the people of the store or of the annotation file."""
    live = EvaluateTeacher(
        teacher=real_coco.teacher,
        annotations=real_coco.annotations,
        images=real_coco.images,
        flip_test=False,
    )
    stored = EvaluateStore(store=real_coco.store)
    annotated = EvaluateStore(store=real_coco.store, annotations=real_coco.annotations)
    figures = [evaluate(config).report.row for config in (live, stored, annotated)]
    ap, ar = zip(*((row.own_score.AP, row.own_score.AR) for row in figures), strict=True)
    assert ap[0] is not None
    assert ap[0] > 0.4
    assert ap[1:] == pytest.approx(ap[:1] * 2, abs=1e-3)
    assert ar[1:] == pytest.approx(ar[:1] * 2, abs=1e-3)
