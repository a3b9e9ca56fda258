"""Distances between the tokens of a student's last layer and those of a teacher (DistilPose, 2023).

The released code compares tokens as they are, so both networks need the same width and grid. A
learned linear map frees the student from them.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.models.token_encoder import Tokens, TokenShape


def token_loss(tokens: Tensor, target_tokens: Tensor) -> Tensor:
    """Return the mean squared difference over B N D numbers.

    All tokens count: those of unlabelled keypoints too, as they need no label.

    tokens: (B, N, D).
    target_tokens: (B, N, D), of any floating dtype.
    """
    return functional.mse_loss(tokens, target_tokens.to(tokens.dtype))


class TokenProjector(nn.Module):
    """Maps a student's tokens to a teacher's width, and visual tokens to its grid.

    One linear map for the keypoint tokens and one for the visual tokens, trained with the student
    and left behind afterwards. Visual tokens are resampled bilinearly over the crop.
    """

    def __init__(self, student: TokenShape, teacher: TokenShape) -> None:
        super().__init__()
        self.student = student
        self.teacher = teacher
        self.keypoint = nn.Linear(student.dim, teacher.dim)
        self.visual = nn.Linear(student.dim, teacher.dim)

    def forward(self, tokens: Tokens) -> Tokens:
        """Map (B, K, d) and (B, p, d) tokens to (B, K, D) and (B, P, D)."""
        # The order is free, as both steps are linear; a student has most often the smaller grid.
        visual_tokens = self.visual(tokens.visual_tokens)
        return Tokens(
            self.keypoint(tokens.keypoint_tokens),
            resample_tokens(visual_tokens, self.student.grid_hw, self.teacher.grid_hw),
        )


def resample_tokens(
    visual_tokens: Tensor, grid_hw: tuple[int, int], target_grid_hw: tuple[int, int]
) -> Tensor:
    """Resample tokens of one patch grid bilinearly to another grid over the same crop.

    A token stands at the centre of its patch.

    visual_tokens: (B, P, D), row by row over ``grid_hw``.
    Returns (B, P', D), row by row over ``target_grid_hw``.
    """
    if grid_hw == target_grid_hw:
        return visual_tokens
    grid = visual_tokens.transpose(1, 2).reshape(len(visual_tokens), -1, *grid_hw)
    resampled = functional.interpolate(grid, target_grid_hw, mode="bilinear", align_corners=False)
    return torch.flatten(resampled, 2).transpose(1, 2)
