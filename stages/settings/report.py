"""Settings of ``distil report``."""

from typing import Self

from pydantic import Field, model_validator

from pipeline.config import InputFile, InputFolder, OutputFile, OutputFolder, StageConfig
from pipeline.settings import DeviceName, InputStore, PeopleSettings


class ReportConfig(StageConfig):
    """All settings of ``distil report``."""

    run_folders: tuple[InputFolder, ...] = Field(min_length=1)
    """Run folders of students; the others are compared with the first."""
    output: OutputFile
    """HTML file to write."""
    store: InputStore | None = None
    """Teacher store to describe, and whose teacher's poses are drawn beside the students'."""
    teacher_name: str | None = None
    """Name of the teacher, for a store with several."""
    annotations: InputFile | None = None
    """COCO keypoint JSON of the people; by default those of the runs' validation."""
    images: InputFolder | None = None
    """Folder of the images of the annotations."""
    people: PeopleSettings | None = None
    """Settings of the people; by default those of the first run."""
    num_people: int = Field(6, ge=1)
    """Number of people in each group of pictures."""
    evaluations: OutputFolder | None = None
    """Folder that keeps the figures of each network, which is then measured once; by default the
    folder evaluations of each run folder."""
    seed: int = Field(0, ge=0)
    """Seed of the bootstrap."""
    device: DeviceName = "auto"
    """Device that the students run on."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.output.suffix.lower() not in (".html", ".htm"):
            raise ValueError(f"--output must be a file name that ends in .html, got {self.output}")
        if (self.annotations is None) != (self.images is None):
            raise ValueError("give --annotations and --images together, or none of them")
        if self.store is None and self.teacher_name is not None:
            raise ValueError("--teacher-name has no effect without --store; leave it out")
        places = [folder.resolve() for folder in self.run_folders]
        for folder in self.run_folders:
            if places.count(folder.resolve()) > 1:
                raise ValueError(f"the run folder {folder} is given twice; give it once")
        return self
