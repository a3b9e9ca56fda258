"""Scores that learn the OKS of the student's own keypoints."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor
from torch.autograd import gradcheck

from pipeline.coco.skeletons import COCO_SIGMAS
from pipeline.errors import ConfigError
from pipeline.models.heads import StudentOutput
from pipeline.training.batch import TrainingBatch
from pipeline.training.heatmap_losses import heat_at
from pipeline.training.loss_parts import LossContext
from pipeline.training.losses import StudentCriterion, keypoints_to_heatmap
from pipeline.training.score_losses import expected_score_loss, keypoint_similarity
from pipeline.training.settings import LossConfig
from tests.support.student_outputs import student_batch, student_output, uniform

SIGMAS = (0.026, 0.079, 0.107)
CROP_WH = torch.tensor([48.0, 64.0], dtype=torch.float64)


def _config(target: str = "oks", **settings: object) -> LossConfig:
    alone = {"regression": 0, "simulated_heatmap": 0, "confidence": 1, "score_target": target}
    return LossConfig.model_validate({**alone, **settings})


def _term(config: LossConfig, output: StudentOutput, batch: TrainingBatch) -> Tensor:
    loss = StudentCriterion(config, 3, LossContext(oks_sigmas=SIGMAS))(output, batch, 0)
    total: Tensor = loss.total
    return total


def _similarity(output: StudentOutput, batch: TrainingBatch) -> Tensor:
    """exp(-d^2 / (2 area (2 sigma)^2)), written out."""
    squared = ((output.keypoints.detach() * CROP_WH - batch.keypoints) ** 2).sum(-1)
    kappa = 2 * torch.tensor(SIGMAS).double()
    return torch.exp(-squared / (2 * batch.areas[:, None] * kappa**2))


def test_the_mean_of_the_similarities_is_the_oks_of_pycocotools() -> None:
    generator = np.random.default_rng(0)
    truth = generator.uniform(50, 150, (17, 2)).round(2)
    found = truth + generator.normal(0, 8, (17, 2)).round(2)
    area = 9000.0
    person = {
        "id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": area,
        "bbox": [40, 40, 120, 120], "num_keypoints": 17,
        "keypoints": np.hstack([truth, np.full((17, 1), 2)]).ravel().tolist(),
    }  # fmt: skip
    coco: Any = COCO()
    coco.dataset = {
        "images": [{"id": 1}], "annotations": [person], "categories": [{"id": 1, "name": "person"}],
    }  # fmt: skip
    coco.createIndex()
    keypoints = np.hstack([found, np.ones((17, 1))]).ravel().tolist()
    results = coco.loadRes(
        [{"image_id": 1, "category_id": 1, "keypoints": keypoints, "score": 1.0}]
    )
    evaluation: Any = COCOeval(coco, results, "keypoints")
    evaluation.params.imgIds = [1]
    evaluation._prepare()
    expected = evaluation.computeOks(1, 1)[0, 0]
    similarities = keypoint_similarity(
        torch.tensor(found)[None], torch.tensor(truth)[None], torch.tensor([area]).double(),
        torch.tensor(COCO_SIGMAS).double(),
    )  # fmt: skip
    assert similarities.mean().item() == pytest.approx(expected, rel=1e-6)


def test_known_keypoints_learn_their_similarity_and_unlabelled_people_the_heat() -> None:
    """Half the squared difference, each person with a target of its own kind."""
    output = student_output()
    batch = student_batch(torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]).double())
    similarity = _similarity(output, batch)
    assert batch.teacher is not None
    assert batch.teacher.heatmaps is not None
    points = keypoints_to_heatmap(output.keypoints, batch)
    heat = heat_at(points, batch.teacher.heatmaps, batch.teacher.scale)
    errors = torch.stack((output.scores[0] - similarity[0], output.scores[1] - heat[1]))
    errors[0, 1] = 0.0  # an unlabelled keypoint of a labelled person
    torch.testing.assert_close(_term(_config(), output, batch), 0.5 * errors.square().mean())
    errors[1] = 0.0
    of_labels = _term(_config("oks_of_labels"), output, replace(batch, teacher=None))
    torch.testing.assert_close(of_labels, 0.5 * errors.square().mean())


def test_the_best_score_of_an_uncertain_keypoint_is_its_expected_similarity() -> None:
    """Of similarities 0, 0 and 0.9 the mean ranks, and the median would be 0."""
    targets = torch.tensor([[0.0, 0.0, 0.9]])
    score = torch.tensor(0.3, requires_grad=True)
    loss = expected_score_loss(score.expand(1, 3), targets, torch.ones(1, 3))
    assert torch.autograd.grad(loss, score)[0].abs() < 1e-7


def test_score_gradients_match_finite_differences_and_leave_the_points_alone() -> None:
    output, batch = student_output(), student_batch()
    assert gradcheck(
        lambda scores: _term(_config(), output._replace(scores=scores), batch), (output.scores,)
    )
    term = _term(_config(), output, batch)
    gradients = torch.autograd.grad(term, (output.keypoints, output.sigmas), allow_unused=True)
    assert all(gradient is None for gradient in gradients)


def test_what_has_no_target_leaves_no_trace() -> None:
    """NaN keypoints behind weight 0, and points on unknown cells, give no gradient."""
    output = student_output()
    batch = student_batch(torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]).double())
    is_masked = batch.keypoint_weights == 0
    keypoints = batch.keypoints.masked_fill(is_masked[..., None], math.nan)
    assert batch.teacher is not None
    is_known = torch.zeros(2, 16, 12, dtype=torch.bool)
    teacher = replace(batch.teacher, is_known=is_known)
    term = _term(_config(), output, replace(batch, keypoints=keypoints, teacher=teacher))
    gradient = torch.autograd.grad(term, output.scores)[0]
    assert (gradient != 0).tolist() == [[True, False, True], [False, False, False]]


def test_mixed_precision_stops_at_the_outputs() -> None:
    half, scores, sigmas = (tensor.detach().bfloat16() for tensor in student_output()[:3])
    halves = StudentOutput(half, scores, sigmas)
    floats = StudentOutput(half.float(), scores.float(), sigmas.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = _term(_config(), halves, student_batch())
    assert mixed.dtype == torch.float32
    assert mixed == _term(_config(), floats, student_batch())


def test_without_a_teacher_the_score_goes_on_learning_from_labels() -> None:
    """A plain student's score is trained too; with heat as the target it cannot be."""
    config = LossConfig(score_target="oks")
    assert config.reads == {"heatmaps"}
    plain = config.without_teacher()
    assert list(plain.terms) == ["regression", "confidence"]
    assert plain.score_target == "oks_of_labels"
    assert not plain.needs_teacher
    assert list(LossConfig().without_teacher().terms) == ["regression"]


def test_the_keypoints_whose_score_was_trained_are_those_with_a_target() -> None:
    weights = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    for target, scored in (("oks", (0, 1, 2)), ("oks_of_labels", (2,))):
        criterion = StudentCriterion(_config(target), 3, LossContext(oks_sigmas=SIGMAS))
        criterion(student_output(), student_batch(weights), 0)
        assert criterion.scored_keypoints == scored


@pytest.mark.parametrize("target", ["oks", "oks_of_labels"])
def test_a_skeleton_without_sigmas_is_refused(target: str) -> None:
    message = rf"score_target is {target}, .* but the skeleton has 0; give sigmas .* to heat"
    with pytest.raises(ConfigError, match=message):
        StudentCriterion(_config(target), 3)
    StudentCriterion(_config(target, confidence=0, regression=1), 3)  # the term is not configured


def test_a_distant_keypoint_of_a_person_without_an_area_has_similarity_0_and_no_nan() -> None:
    points = uniform(0, 40, 1, 3, 2)
    similarity = keypoint_similarity(
        points, points + 1, torch.zeros(1).double(), torch.tensor(SIGMAS)
    )
    assert similarity.tolist() == [[0.0, 0.0, 0.0]]
