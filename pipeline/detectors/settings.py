"""Settings of a detector: its input, and what its outputs mean."""

from typing import Literal, Self

from pydantic import Field, model_validator

from pipeline.config import ComponentConfig
from pipeline.settings import ChannelOrder, StandardDeviation

BoxFormat = Literal["xyxy", "xywh", "cxcywh"]


class DetectorSettings(ComponentConfig):
    """Preprocessing of a detector's input, and the meaning of its outputs."""

    input_size_hw: tuple[int, int] | None = None
    """Height and width of the detector's input in pixels; needed only for a model whose input size
    is dynamic."""
    keep_aspect: bool = True
    """Keep the aspect of the image and fill the rest of the input with grey, in place of stretching
    the image."""
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Mean that is subtracted from the scaled pixels, one number per channel."""
    std: tuple[StandardDeviation, StandardDeviation, StandardDeviation] = (1.0, 1.0, 1.0)
    """Standard deviation that the pixels are then divided by, one number per channel."""
    scale: float = Field(1 / 255, gt=0)
    """Factor that pixels of 0 to 255 are multiplied by before the mean is subtracted."""
    channel_order: ChannelOrder = "rgb"
    """Order of the colour channels that the detector expects."""
    box_format: BoxFormat | None = None
    """Meaning of a box's four numbers; by default xyxy, and cxcywh where boxes and class scores are
    one output."""
    box_unit: Literal["pixels", "fraction"] = "pixels"
    """Unit of boxes: pixels of the detector's input, or fractions of it."""
    person_class: int = Field(0, ge=0)
    """Index of the class person among class scores, class labels or heat maps."""
    heat_activation: Literal["none", "sigmoid"] = "none"
    """Function applied to heat maps; sigmoid for a model that outputs logits."""
    overlap: float = Field(0.6, gt=0, le=1)
    """Largest overlap (IoU) of two boxes; of a pair that overlaps more, the lower score is left
    out."""

    @model_validator(mode="after")
    def _check_size(self) -> Self:
        if self.input_size_hw is not None and min(self.input_size_hw) < 1:
            raise ValueError(f"input_size_hw is {self.input_size_hw}; expected sides of 1 or more")
        return self
