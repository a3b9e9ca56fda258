"""Settings of ``distil predict``."""

import importlib.util
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from pipeline.config import InputFile, InputPath, OutputFolder, StageConfig
from pipeline.detectors.settings import DetectorSettings
from pipeline.media.inputs import find_inputs, require_video_support
from pipeline.settings import BatchSize, DeviceName


class PredictConfig(StageConfig):
    """All settings of ``distil predict``."""

    student: InputPath
    """Student: a run folder of train-student, its weights or a published checkpoint, or a .onnx
    file of export."""
    inputs: tuple[str, ...]
    """Photographs, video files, folders of both, or the index of a webcam."""
    detections: InputFile | None = None
    """Boxes of the people: COCO annotations, or a detector's results in COCO's layout."""
    annotations: InputFile | None = None
    """COCO annotations that name the images of the detections; by default the number at the end of
    a file's name is its image_id."""
    detector: InputFile | None = None
    """Detector of people: a .onnx file that outputs boxes and scores, or heat and size maps."""
    detector_settings: DetectorSettings = DetectorSettings()
    whole_image: bool = False
    """Take each image for the box of one person."""
    min_box_score: float = Field(0.3, allow_inf_nan=False)
    """Smallest score of a box whose person is predicted."""
    detect_every: int = Field(1, ge=1)
    """Number of frames of a video from one use of the detector to the next; between them boxes
    follow the poses."""
    output: OutputFolder
    """Folder for the pictures, videos and JSON files; it must be empty or new."""
    draw: bool = True
    """Draw pictures and videos; without, only the JSON files are written."""
    draw_boxes: bool = True
    """Draw the boxes too."""
    min_keypoint_score: float | None = Field(None, allow_inf_nan=False)
    """Smallest score of a keypoint that is drawn; by default all are drawn."""
    max_frames: int | None = Field(None, ge=1)
    """Number of frames after which a video or a webcam ends; by default all of a video, and of a
    webcam until Ctrl-C."""
    flip_test: bool = True
    """Average the prediction with that of the mirrored crop."""
    padding: float | None = Field(None, ge=1)
    """Factor by which a box is enlarged before it is cropped; by default the one that the student
    was trained with, and 1 for a whole image."""
    batch_size: BatchSize = 64
    """Number of crops in a batch."""
    device: DeviceName = "auto"
    """Device that the student runs on."""

    @model_validator(mode="after")
    def _check_boxes(self) -> Self:
        sources = {
            "--detections": self.detections is not None,
            "--detector": self.detector is not None,
            "--whole-image": self.whole_image,
        }
        given = [name for name, is_given in sources.items() if is_given]
        if len(given) != 1:
            found = f"{' and '.join(given)} are given" if given else "no boxes of people are given"
            raise ValueError(
                f"{found}; give exactly one of --detections FILE, --detector FILE, and "
                "--whole-image for images that show one person each"
            )
        if self.annotations is not None and self.detections is None:
            raise ValueError("annotations name the images of detections; leave annotations out")
        if self.detector is None:
            for name in ("detector_settings", "detect_every"):
                if name in self.model_fields_set:
                    raise ValueError(f"{name} has no effect without a detector; leave it out")
        elif importlib.util.find_spec("onnxruntime") is None:
            raise ValueError(
                "a detector needs onnxruntime, which is not installed; install the extra onnx (uv "
                "sync --extra onnx)"
            )
        return self

    @model_validator(mode="after")
    def _check_inputs(self) -> Self:
        inputs = find_inputs(self.inputs)
        require_video_support(inputs)
        moving = len(inputs.videos) + len(inputs.webcams)
        if self.detections is not None and moving and (moving > 1 or inputs.photographs):
            raise ValueError(
                "detections of a video state the number of a frame as image_id, so the video must "
                "be the only input; predict each video with its own detections"
            )
        return self

    @model_validator(mode="after")
    def _check_output(self) -> Self:
        check_output_folder(self.output)
        return self


def check_output_folder(folder: Path) -> None:
    """Raise ValueError for a path that is no folder, or a folder that holds something."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"output {folder} is a file; expected a folder; choose another")
    if folder.is_dir() and any(folder.iterdir()):
        raise ValueError(
            f"output {folder} holds files already, which would be mixed with the new ones; choose "
            "another folder, or empty it"
        )
