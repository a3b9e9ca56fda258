"""Settings of ``distil export``."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from pipeline.config import InputFile, InputFolder, OutputFile, StageConfig
from pipeline.settings import DeviceName, InputStore, PeopleSettings

AllowedBatch = Annotated[
    int | None,
    Field(ge=1, le=65_536),
    BeforeValidator(lambda given: None if given == "dynamic" else given),
]


class ExportConfig(StageConfig):
    """All settings of ``distil export``."""

    run_folder: InputFolder | None = None
    """Run folder of a student, whose best weights are exported."""
    student: InputFile | None = None
    """Weights file of a student, trained here or published, in place of a run folder."""
    output: OutputFile
    """ONNX file to write; its model card is written beside it, with the ending .md."""
    precision: Literal["float32", "float16", "int8"] = "float32"
    """Numbers that the student computes in; int8 is written only if it keeps its AP."""
    batch_size: AllowedBatch = None
    """Number of crops that the file takes at a time; dynamic: any number."""
    val_annotations: InputFile | None = None
    """COCO keypoint JSON of the people that AP is measured on, before and after."""
    val_images: InputFolder | None = None
    """Folder of the images of --val-annotations."""
    people: PeopleSettings = PeopleSettings()
    device: DeviceName = "auto"
    """Device on which the run's own AP is measured; the file's is measured on the CPU."""
    max_ap_loss: float = Field(0.01, ge=0, le=1)
    """Largest loss of AP; a file that loses more is not written."""
    store: InputStore | None = None
    """Teacher store on whose crops int8 is calibrated; by default the one that the run learned
    from."""
    images: InputFolder | None = None
    """Folder of the images of a store without crops; by default the run's."""
    calibration_people: int = Field(128, ge=8)
    """Number of people whose crops int8 is calibrated on."""
    calibration_percentile: float = Field(99.99, gt=50, le=100)
    """Share of the activations that lie within the range of their int8 numbers, in percent."""
    licence: str = Field("other", pattern=r"^[a-z0-9][a-z0-9.\-]*$")
    """Licence for the model card, as the Hugging Face hub names it, such as apache-2.0."""
    push_to_hub: str | None = Field(None, min_length=1)
    """Repository of the Hugging Face hub to push file and card to; created, private, if it is not
    there."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.run_folder is None) == (self.student is None):
            raise ValueError("nothing to export: give one of run_folder and student")
        if self.output.suffix.lower() != ".onnx":
            raise ValueError(f"output must be a file name that ends in .onnx, got {self.output}")
        if (self.val_annotations is None) != (self.val_images is None):
            raise ValueError(
                "--val-annotations and --val-images belong together; give both or neither"
            )
        if self.precision == "int8" and self.val_annotations is None:
            raise ValueError(
                "--precision int8 needs --val-annotations and --val-images, as it is written only "
                "if its AP is kept"
            )
        return self

    @property
    def source(self) -> Path:
        """The run folder or the weights file."""
        source = self.run_folder or self.student
        assert source is not None
        return source
