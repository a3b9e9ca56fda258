"""Tokens as stored in int8: number = stored * scale, one float16 scale per token.

Symmetric by token (Krishnamoorthi, https://arxiv.org/abs/1806.08342, section 2): the scale is the
largest magnitude of the token / 127, rounded up to float16, so that no number is clipped. |stored *
scale - given| <= scale / 2 up to the rounding of float32: 1/254 of the largest magnitude, and 0.1 %
more where the scale was rounded up. -128 is no stored number.
"""

import numpy as np
from numpy.typing import NDArray

from store_schemas.heatmap_codec import CodecError

LARGEST_LEVEL = 127


def quantise_tokens(
    tokens: NDArray[np.float32],
) -> tuple[NDArray[np.int8], NDArray[np.float16]]:
    """Quantise tokens.

    Args:
        tokens: (..., T, D).

    Returns:
        stored: (..., T, D) int8, in -127..127.
        scale: (..., T); 0 for a token of zeros, not finite for one that is not finite or whose
            numbers exceed 127 times 65504, which must not be stored.
    """
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        exact = np.abs(tokens).max(axis=-1) / np.float32(LARGEST_LEVEL)
        scale = exact.astype(np.float16)
        is_below = scale.astype(np.float32) < exact
        scale = np.where(is_below, np.nextafter(scale, np.float16(np.inf)), scale)
        step = scale.astype(np.float32)[..., None]
        levels = np.rint(tokens / np.where(step > 0, step, np.float32(1)))
    return np.nan_to_num(levels, nan=0.0).astype(np.int8), scale


def dequantise_tokens(stored: NDArray[np.int8], scale: NDArray[np.float16]) -> NDArray[np.float32]:
    """Return the numbers of stored tokens: (..., T, D).

    Args:
        stored: (..., T, D) int8.
        scale: (..., T).
    """
    return np.asarray(stored * scale.astype(np.float32)[..., None], np.float32)


def measure_token_error(
    tokens: NDArray[np.float32], stored: NDArray[np.int8], scale: NDArray[np.float16]
) -> CodecError:
    """Compare tokens (..., T, D) with their stored form, relative to each token's largest number.

    Tokens of zeros, which are stored exactly, count with an error of 0.
    """
    largest = np.abs(tokens).max(axis=-1, keepdims=True).astype(np.float64)
    difference = dequantise_tokens(stored, scale).astype(np.float64) - tokens
    relative = difference / np.where(largest > 0, largest, 1.0)
    greatest = float(np.abs(relative).max(initial=0.0))
    return CodecError(greatest, float(np.square(relative).sum()), relative.size)
