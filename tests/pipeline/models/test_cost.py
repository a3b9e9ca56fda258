"""Counted costs against the published ones (DistilPose, CVPR 2023) and against arithmetic."""

import pytest
import torch

from pipeline.models import build_network
from pipeline.models.cost import count_multiply_adds, count_parameters


@pytest.mark.parametrize(
    ("architecture", "num_parameters"), [("distilpose-s", 5_364_101), ("tokenpose-s", 6_620_736)]
)
def test_parameters_are_the_published_ones(architecture: str, num_parameters: int) -> None:
    """5.36 M and 6.6 M, to the last parameter, without the fixed sine embedding."""
    assert count_parameters(build_network(architecture, 17)) == num_parameters


def test_multiply_adds_are_the_published_ones() -> None:
    """2.38 G as published are the convolutions and linear layers; attention comes on top."""
    cost = count_multiply_adds(build_network("distilpose-s", 17))
    assert cost.conv_linear == 2_361_376_704
    assert cost.attention == 12 * 2 * (17 + 256) ** 2 * 192 == 343_429_632


def test_attention_grows_with_the_square_of_the_tokens() -> None:
    """Another number of keypoints changes both counts by what arithmetic says."""
    few, many = (count_multiply_adds(build_network("distilpose-xs", k)) for k in (1, 33))
    assert many.attention == few.attention * (33 + 48) ** 2 // (1 + 48) ** 2
    per_token = 4 * (3 + 1 + 2 + 2) * 128 * 128 + 5 * 128
    assert many.conv_linear - few.conv_linear == 32 * per_token


def test_small_teacher_fits_three_megabytes_in_half_precision() -> None:
    """Its weights may travel with the program."""
    assert count_parameters(build_network("tokenpose-xs", 17)) < 1_450_000


@pytest.mark.parametrize("training", [True, False])
def test_counting_leaves_the_network_as_it_was(training: bool) -> None:
    """Neither the mode nor the batch statistics change."""
    network = build_network("distilpose-xs", 2).train(training)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    count_multiply_adds(network)
    assert network.training == training
    assert all(torch.equal(before[name], x) for name, x in network.state_dict().items())
