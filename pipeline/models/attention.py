"""The attention of a token encoder, recorded while it runs.

A layer computes its attention in one fused call, which returns no weights. They are computed again
from the layer's own queries and keys, beside the forward pass, whose arithmetic does not change.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from pipeline.models.token_encoder import EncoderLayer, TokenDistillingEncoder


@contextmanager
def recorded_attention(encoder: TokenDistillingEncoder) -> Iterator[list[Tensor]]:
    """Record the attention of every layer, for each forward pass within the context.

    Yields a list that grows by a tensor a layer, in order: (B, num_heads, K + P, K + P), the
    weights by which a token (row) takes the values of all tokens (columns), keypoint tokens first;
    a row is at least 0 and sums to 1.
    """
    found: list[Tensor] = []
    with ExitStack() as hooks:
        for layer in encoder.layers:
            assert isinstance(layer, EncoderLayer)

            def record(_: Any, __: Any, qkv: Tensor, layer: EncoderLayer = layer) -> None:
                found.append(attention_weights(layer, qkv))

            handle = layer.qkv.register_forward_hook(record)
            hooks.callback(handle.remove)
        yield found


def attention_weights(layer: EncoderLayer, qkv: Tensor) -> Tensor:
    """Return (B, num_heads, T, T), the attention of a layer, from its (B, T, 3 D) projection."""
    batch, length, channels = qkv.shape
    heads = qkv.view(batch, length, 3, layer.num_heads, channels // (3 * layer.num_heads))
    query, key, _ = heads.transpose(1, 3).unbind(2)
    return torch.softmax(query @ key.transpose(-2, -1) * layer.attention_scale, dim=-1)
