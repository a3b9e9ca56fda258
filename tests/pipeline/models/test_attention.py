"""The attention that is recorded is the attention that the encoder uses."""

import pytest
import torch
from torch import Tensor

from pipeline.models.attention import recorded_attention
from pipeline.models.pose_networks import RegressionStudent, TokenPoseTeacher, build_network
from pipeline.models.token_encoder import EncoderLayer


def network_of(architecture: str) -> RegressionStudent | TokenPoseTeacher:
    torch.manual_seed(0)
    network = build_network(architecture, 5).eval()
    assert isinstance(network, RegressionStudent | TokenPoseTeacher)
    for layer in network.encoder.layers:  # attention that is not flat
        torch.nn.init.normal_(layer.qkv.weight, std=0.2)  # type: ignore[union-attr, arg-type]
    return network


@pytest.mark.parametrize("architecture", ["distilpose-xs", "tokenpose-xs"])
@pytest.mark.parametrize("scale", [None, 0.5])
@torch.inference_mode()
def test_the_weights_times_the_values_are_the_layers_own_output(
    architecture: str, scale: float | None
) -> None:
    """They follow the scale of the layer, which differs between published networks."""
    network = network_of(architecture)
    if scale is not None:
        for layer in network.encoder.layers:
            layer.attention_scale = scale  # type: ignore[assignment]
    inputs: list[Tensor] = []
    values: list[Tensor] = []
    for layer in network.encoder.layers:
        assert isinstance(layer, EncoderLayer)
        layer.qkv.register_forward_hook(lambda _, __, out: values.append(out.chunk(3, dim=-1)[2]))
        layer.attention_out.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    images = torch.randn(2, 3, 128, 96)
    with recorded_attention(network.encoder) as found:
        network(images)
    assert len(found) == len(network.encoder.layers) == 4
    for weights, value, mixed in zip(found, values, inputs, strict=True):
        assert weights.shape == (2, 4, 5 + 48, 5 + 48)
        assert (weights >= 0).all()
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 53), atol=1e-5, rtol=0)
        assert weights.max() > 3 / 53, "attention that is flat proves nothing"
        heads = [weights[:, head] @ value[..., 32 * head : 32 * head + 32] for head in range(4)]
        torch.testing.assert_close(torch.cat(heads, dim=-1), mixed, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_recording_changes_no_bit_of_the_output_and_ends_with_the_context() -> None:
    network = network_of("distilpose-xs")
    images = torch.randn(2, 3, 128, 96)
    before = network(images)
    names = list(network.state_dict())
    with recorded_attention(network.encoder) as found:
        during = network(images)
        assert len(found) == 4
        network(images)
        assert len(found) == 8
    network(images)
    assert len(found) == 8
    assert all(torch.equal(a, b) for a, b in zip(before[:3], during[:3], strict=True))
    assert list(network.state_dict()) == names
