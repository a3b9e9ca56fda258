"""Settings that several stages share: of people, skeletons, views and teachers.

A field's docstring is the help of its option at the command line. Loads pydantic and nothing
heavier, so that a command line is checked before torch, zarr or numpy are loaded.
"""

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from pipeline.config import ComponentConfig, InputFile, PathRole
from pipeline.storage.folder import StoreLocation

HeatmapFrame = Literal["msra", "half-pixel", "udp"]
ChannelOrder = Literal["rgb", "bgr"]
Decoding = Literal["dark", "quarter", "argmax"]
Precision = Literal["float32", "bfloat16", "float16"]


def _device_name(name: str) -> str:
    if re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name) is None:
        raise ValueError("expected auto, cpu, cuda, mps or cuda:N, N counted from 0")
    return name


DeviceName = Annotated[str, AfterValidator(_device_name)]
"""Device of a network: ``auto`` takes a CUDA GPU where there is one, and else the CPU."""

HUB = "hf:"
"""What stands before the name of a model on the Hugging Face hub, in place of a path."""
TeacherPath = Annotated[Path, PathRole("teacher")]
"""Path of a teacher's file or folder, or ``hf:OWNER/NAME``."""


def is_on_hub(teacher: Path) -> bool:
    """Return whether a teacher's path is the name of a model on the Hugging Face hub."""
    return str(teacher).startswith(HUB)


def absolute_teacher(teacher: Path) -> Path:
    """Return a teacher's absolute path; the name of a model on the hub as it is."""
    return teacher if is_on_hub(teacher) else teacher.absolute()


InputStore = Annotated[StoreLocation, PathRole("store")]

PADDING = 1.25
"""Factor by which a person's box is enlarged before it is cropped, as in every top-down method."""
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
PROBE_PEOPLE = 64
KEYPOINT_THRESHOLD: float | None = None
"""Score that a keypoint must exceed to count in the score of its pose; None: all count, by which
two teachers measured better than by 0.2 in three of four cases, and 0.003 AP worse in one."""

MAX_PROCESSES = 1024
"""Largest number of processes, and of threads, that a command starts on one machine."""
NumThreads = Annotated[int, Field(ge=1, le=MAX_PROCESSES)]
NumLoaderWorkers = Annotated[int, Field(ge=0, le=MAX_PROCESSES)]
NumAugmentedViews = Annotated[int, Field(ge=0, le=10_000)]
BatchSize = Annotated[int, Field(ge=1, le=65_536)]
StandardDeviation = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class SkeletonSettings(ComponentConfig):
    """Properties of keypoints that an annotation file lacks; not needed for COCO's 17."""

    sigmas: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] | None = None
    """Fall-off of OKS, one number per keypoint."""
    flip_pairs: tuple[tuple[str, str], ...] | None = None
    """Pairs of keypoints that a mirrored person exchanges, by name; by default the names that
    differ in left and right only."""
    upper_body: tuple[str, ...] = ()
    """Names of the keypoints that a half-body view may keep."""
    lower_body: tuple[str, ...] = ()
    """Names of the other keypoints that a half-body view may keep."""


class PeopleSettings(ComponentConfig):
    """Settings for reading an annotation file."""

    skeleton: SkeletonSettings = SkeletonSettings()
    area_fraction: float | None = Field(default=None, gt=0, le=1)
    """Area given to a person whose annotation has none, as a fraction of the area of the box; by
    default such a file is refused."""
    clip_boxes: bool = True
    """Intersect each person's box with the image."""
    category: str | None = None
    """Name of the category to read; by default the only one with keypoints, or ``person``."""


class StoredPeopleSettings(PeopleSettings):
    """Settings for reading the people of a teacher store, with labelled keypoints or without."""

    only_labelled: bool = False
    """Leave out annotated people without labelled keypoints: they are ignore regions only, as in
    every evaluation."""
    detections: InputFile | None = None
    """COCO results with a detector's boxes on the same images, whose people join the annotated
    ones."""
    detection_threshold: float = Field(0.5, allow_inf_nan=False)
    """Smallest score of a detection whose person is taken."""
    detection_overlap: float = Field(0.5, ge=0, le=1)
    """Largest overlap of a detection with an annotated box (IoU, and the covered share of the
    detection for ignore regions); beyond it the two are taken for one."""

    @model_validator(mode="after")
    def _check_detections(self) -> Self:
        if self.only_labelled and self.detections is not None:
            raise ValueError(
                "only_labelled must be left out with detections, whose people have no label; "
                "leave one of them out"
            )
        return self


class ViewRecipe(ComponentConfig):
    """Distribution of augmented views. Probabilities are in [0, 1]."""

    padding: float = Field(PADDING, ge=1)
    """Factor by which a person's box is enlarged before it is cropped."""
    flip_probability: float = Field(0.5, ge=0, le=1)
    """Probability that a view is mirrored."""
    half_body_probability: float = Field(0.3, ge=0, le=1)
    """Probability that a view shows the upper or the lower half of the body alone."""
    scale_factor: float = Field(0.35, ge=0, lt=1)
    """Standard deviation of the factor of the box size, a normal variate of mean 1 that is clipped
    to one deviation."""
    rotation_degrees: float = Field(45.0, ge=0, le=90)
    """Standard deviation of the rotation, which is clipped to twice this."""
    rotation_probability: float = Field(0.6, ge=0, le=1)
    """Probability that a view is rotated."""
    shift_factor: float = Field(0.2, ge=0, le=1)
    """Largest shift of the centre, as a fraction of the box."""
    shift_probability: float = Field(0.3, ge=0, le=1)
    """Probability that the centre of a view is shifted."""


class TeacherSettings(ComponentConfig):
    """Preprocessing of a teacher's input, and decoding of its heatmaps.

    Fields that are None are taken from the network's own file.
    """

    architecture: str | None = None
    """Name of the network in a published checkpoint; needed only where its tensors fit several."""
    input_size_hw: tuple[int, int] | None = None
    """Height and width of the teacher's crops in pixels; needed for an ONNX model whose input size
    is dynamic, and for a published convolutional network that was not trained on 256x192."""
    output_name: str | None = None
    """Name of the output that holds the heatmaps, for a model with several outputs."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    """Mean that is subtracted from the scaled pixels, one number per channel."""
    std: tuple[StandardDeviation, StandardDeviation, StandardDeviation] = IMAGENET_STD
    """Standard deviation that the pixels are then divided by, one number per channel."""
    scale: float = Field(1 / 255, gt=0)
    """Factor that pixels of 0 to 255 are multiplied by before the mean is subtracted."""
    channel_order: ChannelOrder = "rgb"
    """Order of the colour channels that the teacher expects."""
    keypoint_order: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    """Output of the teacher for each keypoint of the annotations in turn, counted from 0; by
    default both have the same order."""
    heatmap_activation: Literal["none", "sigmoid"] = "none"
    """Function applied to the model's output; sigmoid for a model that outputs logits."""
    heatmap_gain: float = Field(1.0, gt=0)
    """Factor that heatmaps are multiplied by after the activation, so that peaks are near 1."""
    heatmap_frame: HeatmapFrame | None = None
    """Convention that relates crop pixels to heatmap cells; by default the network's own: msra for
    ONNX files and most published checkpoints, udp for ViTPose, half-pixel for SimCC."""
    flip_test: bool = False
    """Average the heatmaps with those of the mirrored crop."""
    flip_shift: int | None = Field(None, ge=0)
    """Number of cells by which the heatmaps of the mirrored crop are shifted to the right, once
    they are mirrored back; by default 1 for msra and 0 for the other frames."""
    decoding: Decoding = "dark"
    """Method that finds a keypoint in its heatmap."""
    batch_size: BatchSize = 32
    """Number of crops in one forward pass; the last batch is padded, so every pass has the same
    arithmetic."""
    num_threads: NumThreads | None = None
    """Number of CPU threads of one forward pass; by default 1 where a store is written, as one
    batch runs on each core, and elsewhere one for each core."""
    device: DeviceName = "auto"
    """Device that the teacher runs on: auto, cpu, cuda, mps or cuda:N; auto takes a CUDA GPU where
    there is one."""
    precision: Precision = "float32"
    """Number format of the products of a teacher that torch runs; any other than float32 changes
    its heatmaps, and stands in the store's identity."""
