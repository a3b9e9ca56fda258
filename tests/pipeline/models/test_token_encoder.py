"""The token encoder against plain, slow statements of what it computes."""

import math

import pytest
import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from pipeline.models.token_encoder import EncoderLayer, TokenDistillingEncoder, sine_positions


def _small_encoder(depth: int = 2) -> TokenDistillingEncoder:
    torch.manual_seed(0)
    return TokenDistillingEncoder(
        num_channels=5,
        feature_size_hw=(8, 6),
        num_keypoints=3,
        patch_size_hw=(4, 3),
        dim=16,
        depth=depth,
        num_heads=4,
        mlp_ratio=2,
    )


def test_a_patch_is_a_row_with_channels_fastest() -> None:
    """Entry (row, column, channel) of patch (i, j) is the feature at (4 i + row, 3 j + column)."""
    features = torch.randn(2, 5, 8, 6)
    patches = _small_encoder().cut_patches(features).view(2, 2, 2, 4, 3, 5)
    for i, j, row, column in [(0, 0, 0, 0), (1, 0, 2, 1), (0, 1, 3, 2), (1, 1, 1, 0)]:
        expected = features[:, :, 4 * i + row, 3 * j + column]
        assert torch.equal(patches[:, i, j, row, column], expected)


def test_patches_do_not_depend_on_the_memory_layout() -> None:
    """Channels-last features are cut into the same patches."""
    features = torch.randn(2, 5, 8, 6)
    encoder = _small_encoder()
    reordered = features.contiguous(memory_format=torch.channels_last)
    assert torch.equal(encoder.cut_patches(features), encoder.cut_patches(reordered))


def test_attention_is_softmax_of_scaled_products() -> None:
    """Per head, weights are softmax(q k / sqrt(D / heads)); written out here token by token."""
    torch.manual_seed(1)
    layer = EncoderLayer(16, num_heads=4, mlp_ratio=2).double()
    tokens = torch.randn(2, 7, 16, dtype=torch.float64)
    query, key, value = (tokens @ w.T for w in layer.qkv.weight.chunk(3))
    mixed = torch.empty_like(tokens)
    for head in range(4):
        part = slice(4 * head, 4 * head + 4)
        products = query[..., part] @ key[..., part].transpose(1, 2) / math.sqrt(4)
        mixed[..., part] = products.softmax(-1) @ value[..., part]
    expected = mixed @ layer.attention_out.weight.T + layer.attention_out.bias
    torch.testing.assert_close(layer.attend(tokens), expected)


def test_a_layer_is_the_block_of_timms_vision_transformer() -> None:
    """Pre-norm, exact GELU, residual: with the same weights timm's block gives the same tokens."""
    torch.manual_seed(2)
    layer = EncoderLayer(16, num_heads=4, mlp_ratio=2).double()
    block = Block(16, num_heads=4, mlp_ratio=2, norm_layer=nn.LayerNorm).double()
    renamed = {
        "norm1": layer.attention_norm,
        "attn.qkv": layer.qkv,
        "attn.proj": layer.attention_out,
        "norm2": layer.mlp_norm,
        "mlp.fc1": layer.mlp_in,
        "mlp.fc2": layer.mlp_out,
    }
    for name, module in renamed.items():
        block.get_submodule(name).load_state_dict(module.state_dict())
    tokens = torch.randn(2, 7, 16, dtype=torch.float64)
    torch.testing.assert_close(layer(tokens), block(tokens))


def test_positions_are_added_before_every_layer_and_never_to_keypoint_tokens() -> None:
    """With layers that do nothing, visual tokens hold depth times the embedding, others none."""
    depth = 3
    encoder = _small_encoder(depth)
    for parameter in encoder.layers.parameters():
        torch.nn.init.zeros_(parameter)
    features = torch.randn(1, 5, 8, 6)
    with torch.no_grad():
        tokens = encoder(features)
        embedded = encoder.patch_embedding(encoder.cut_patches(features))
    assert torch.equal(tokens.keypoint_tokens, encoder.keypoint_tokens)
    expected = embedded + depth * sine_positions((2, 2), 16)
    torch.testing.assert_close(tokens.visual_tokens, expected)


def _position_written_out(row: int, column: int, grid_hw: tuple[int, int], dim: int) -> Tensor:
    half = dim // 2
    values = []
    for place, size in ((row, grid_hw[0]), (column, grid_hw[1])):
        angle = 2 * math.pi * (place + 1) / size
        for channel in range(half):
            wavelength = 10_000 ** (2 * (channel // 2) / half)
            wave = math.sin if channel % 2 == 0 else math.cos
            values.append(wave(angle / wavelength))
    return torch.tensor(values)


def test_sine_positions_tell_y_first_then_x() -> None:
    """The embedding equals TokenPose's formula, written out for each place of a 4 x 3 grid."""
    positions = sine_positions((4, 3), 16)[0].view(4, 3, 16)
    for row in range(4):
        for column in range(3):
            expected = _position_written_out(row, column, (4, 3), 16)
            torch.testing.assert_close(positions[row, column], expected, rtol=0, atol=1e-5)


def test_a_patch_that_does_not_divide_the_map_is_refused() -> None:
    """The refusal names the map and the patch."""
    with pytest.raises(ValueError, match=r"8 x 6 cannot be cut into patches of 3 x 3"):
        TokenDistillingEncoder(5, (8, 6), 3, (3, 3), dim=16, depth=1, num_heads=4, mlp_ratio=2)


def test_an_embedding_without_sine_and_cosine_pairs_is_refused() -> None:
    """Two axes of sine and cosine need a dimension divisible by 4."""
    with pytest.raises(ValueError, match="divisible by 4, got 18"):
        sine_positions((2, 2), 18)
