"""Whether the tokens of a store can be the targets of a student's."""

from typing import Literal

from pipeline.errors import ConfigError
from pipeline.frames.geometry import SizeHW
from pipeline.teacher_store.reader import TeacherStore

TokenKind = Literal["keypoint", "visual"]


def require_tokens(store: TeacherStore, kind: TokenKind, dim: int, grid_hw: SizeHW) -> None:
    """Refuse a store whose tokens a student cannot be compared with, one by one.

    Args:
        kind: Which tokens are needed.
        dim: D of the student.
        grid_hw: Patches of the student; the visual tokens' alone must be the teacher's.

    Raises:
        ConfigError: the store has no such tokens, or of another dimension or grid.
    """
    tokens = store.optional.tokens
    if tokens is None or kind not in tokens.kinds:
        held = "none" if tokens is None else f"{', '.join(tokens.kinds)} tokens alone"
        raise ConfigError(
            f"{store.path} must hold {kind} tokens, got {held}; write a store with cache-teacher "
            f"--tokens {kind}"
        )
    if tokens.dim != dim:
        raise ConfigError(
            f"the student's tokens have {dim} channels, those of {store.path} {tokens.dim}; they "
            "must be as many: choose a student of the teacher's size"
        )
    if kind == "visual" and tuple(tokens.grid_hw) != tuple(grid_hw):
        raise ConfigError(
            f"the student has {grid_hw[0]} x {grid_hw[1]} patches, the tokens of {store.path} are "
            f"of {tokens.grid_hw[0]} x {tokens.grid_hw[1]}; they must be the same: choose a "
            "student of the teacher's size"
        )
