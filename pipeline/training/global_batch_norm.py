"""Batch normalisation over the rows of all processes of a training.

On GPUs it is torch's, in timm's conversion, which keeps a layer's activation. torch has none for
CPUs; the one here computes the same from three small sums.
"""

from typing import Any

import torch
from timm.layers.norm_act import BatchNormAct2d, convert_sync_batchnorm
from torch import Tensor, distributed, nn
from torch.autograd.function import Function
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm


def synchronise_batch_norm(network: nn.Module, device: torch.device) -> None:
    """Replace every batch normalisation below a network, in place; weights keep their names."""
    for name, child in network.named_children():
        if not isinstance(child, _BatchNorm):
            synchronise_batch_norm(child, device)
        elif device.type == "cuda":
            setattr(network, name, convert_sync_batchnorm(child))  # type: ignore[no-untyped-call]
        else:
            setattr(network, name, GlobalBatchNorm(child))


class GlobalBatchNorm(_BatchNorm):
    """Normalises by the mean and variance of the rows of all processes, which may differ in number.

    layer: the layer that it replaces, whose weights, statistics and activation it takes over.
    """

    def __init__(self, layer: _BatchNorm) -> None:
        super().__init__(
            layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats
        )
        self.weight, self.bias = layer.weight, layer.bias
        self.running_mean, self.running_var = layer.running_mean, layer.running_var
        self.num_batches_tracked = layer.num_batches_tracked
        self.train(layer.training)
        self.after: nn.Module = nn.Identity()
        if isinstance(layer, BatchNormAct2d):
            assert isinstance(layer.drop, nn.Module)
            assert isinstance(layer.act, nn.Module)
            self.after = nn.Sequential(layer.drop, layer.act)

    def forward(self, images: Tensor) -> Tensor:
        """Normalise (B, C, ...) values."""
        if not self.training:
            return self.after(super().forward(images))
        normalised, mean, variance, count = _Normalise.apply(
            images, self.weight, self.bias, self.eps
        )
        if self.running_mean is not None and self.running_var is not None:
            assert self.num_batches_tracked is not None
            self.num_batches_tracked.add_(1)
            tracked = self.num_batches_tracked
            rate = 1.0 / float(tracked) if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean, rate)
            self.running_var.lerp_(variance * (count / (count - 1).clamp(min=1)), rate)
        return self.after(normalised)

    def _check_input_dim(self, input: Tensor) -> None:
        """Accept any number of dimensions."""


class _Normalise(Function):
    """(x - mean) / sqrt(variance + eps) * weight + bias, as in Ioffe and Szegedy, 2015."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        dims = [0, *range(2, x.ndim)]
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        variance, mean = torch.var_mean(wide, dims, correction=0)
        own = torch.cat([mean, variance, mean.new_tensor([x.numel() / x.shape[1]])])
        all_of_them = [torch.empty_like(own) for _ in range(distributed.get_world_size())]
        distributed.all_gather(all_of_them, own)
        means, variances, counts = torch.split(
            torch.stack(all_of_them), [len(mean), len(mean), 1], dim=1
        )
        count = counts.sum()
        mean = (counts * means).sum(dim=0) / count
        # As in Chan, Golub and LeVeque, 1979: nothing large is subtracted from anything large.
        variance = (counts * (variances + (means - mean).square())).sum(dim=0) / count
        ctx.save_for_backward(x, weight, mean, (variance + eps).rsqrt(), count)
        normalised = functional.batch_norm(x, mean, variance, weight, bias, False, 0.0, eps)
        ctx.mark_non_differentiable(mean, variance, count)
        return normalised, mean, variance, count

    @staticmethod
    def backward(
        ctx: Any, gradient: Tensor, *_: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        x, weight, mean, inverse_std, count = ctx.saved_tensors
        dims = [0, *range(2, x.ndim)]
        shape = [1, -1, *[1] * (x.ndim - 2)]
        wide = gradient.to(mean.dtype)
        own_sum = wide.sum(dims)
        own_product = ((wide * x).sum(dims) - mean * own_sum) * inverse_std
        sums = torch.stack([own_sum, own_product])
        distributed.all_reduce(sums)
        mean_gradient, mean_product = sums / count
        scale = inverse_std if weight is None else weight * inverse_std
        slope = -scale * inverse_std * mean_product
        offset = -scale * mean_gradient - slope * mean
        to_x = torch.addcmul(offset.view(shape), x, slope.view(shape))
        to_x = torch.addcmul(to_x, wide, scale.view(shape))
        to_weights = (None, None) if weight is None else (own_product, own_sum)
        return to_x.to(x.dtype), *to_weights, None
