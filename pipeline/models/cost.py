"""Cost of a network: parameters and multiply-adds, counted and not estimated.

Published "GFLOPs" of pose networks are multiply-adds of convolutions and linear layers, without the
products inside attention; torch's own counter reports two operations per multiply-add.
"""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pipeline.models.pose_networks import PoseNetwork

_ATTENTION_PRODUCTS = (torch.ops.aten.bmm, torch.ops.aten.baddbmm)


class MultiplyAdds(NamedTuple):
    """Multiply-adds for one crop."""

    conv_linear: int
    attention: int


def count_parameters(module: nn.Module) -> int:
    """Count the trainable parameters; fixed position embeddings are buffers and do not count."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def count_multiply_adds(network: PoseNetwork) -> MultiplyAdds:
    """Count the multiply-adds of a forward pass over one crop, by running it."""
    device = next(network.parameters()).device
    image = torch.zeros(1, 3, *network.input_size_hw, device=device)
    was_training = network.training
    network.eval()
    # The plain kernel shows attention as two batched products, whatever kernels a machine fuses.
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        network(image)
    network.train(was_training)
    operations = counter.get_flop_counts()["Global"]
    attention = sum(operations.get(product, 0) for product in _ATTENTION_PRODUCTS)
    return MultiplyAdds((sum(operations.values()) - attention) // 2, attention // 2)
