"""Settings of ``distil evaluate``, ``compare`` and ``show``."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from pipeline.config import StageConfig
from pipeline.settings import PeopleSettings, TeacherSettings
from pipeline.storage.folder import StoreLocation

DEFAULT_THRESHOLD = 0.2

_SOURCES = ("run_folder", "weights", "teacher", "store", "predictions")
_NETWORKS = ("run_folder", "weights", "teacher")


class EvaluateConfig(StageConfig):
    """All settings of ``distil evaluate``."""

    run_folder: Path | None = None
    """A run of ``train-student``: its best weights."""
    weights: Path | None = None
    """A weights file of ``train-student``."""
    teacher: Path | None = None
    store: StoreLocation | None = None
    """A teacher store: the stored outputs of view 0."""
    teacher_name: str | None = None
    """Of a store: whose outputs; None: those of the only one."""
    store_cache: Path | None = None
    """A folder that its shards are copied to when they are first read."""
    predictions: Path | None = None
    """COCO keypoint results of any tool, taken as they are."""
    annotations: Path | None = None
    """The truth; None: the people that the store holds."""
    images: Path | None = None
    detections: Path | None = None
    """A detector's boxes; None: the boxes of the annotated people."""
    people: PeopleSettings = PeopleSettings()
    teacher_settings: TeacherSettings = TeacherSettings()
    """``flip_test`` in here is set by ``flip_test`` below."""
    flip_test: bool = True
    keypoint_threshold: Annotated[
        float | None, BeforeValidator(lambda given: None if given == "none" else given)
    ] = DEFAULT_THRESHOLD
    """Keypoint scores above it are averaged to a pose's score; None ("none" in TOML): all."""
    padding: float | None = Field(None, ge=1)
    """None: as the network was trained; 1.25 where its file does not say."""
    batch_size: int = Field(64, ge=1)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Of a student."""
    min_ap: float | None = Field(None, ge=0, le=1)
    output: Path | None = None
    """Folder for evaluation.json and results.json; None: evaluation.json into the run folder."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        given = [name for name in _SOURCES if getattr(self, name) is not None]
        if len(given) != 1:
            what = f"{' and '.join(given)} are given" if given else "nothing to evaluate is given"
            raise ValueError(f"{what}; give exactly one of {', '.join(_SOURCES)}")
        if self.annotations is None and self.store is None:
            raise ValueError(f"{given[0]} needs annotations; give the COCO file with the truth")
        if given[0] in _NETWORKS and self.images is None:
            raise ValueError(f"{given[0]} needs images; give the folder of the annotated images")
        if self.teacher_settings.flip_test and not self.flip_test:
            raise ValueError("teacher_settings.flip_test contradicts flip_test; set flip_test only")
        for name, reason in self._useless_settings(given[0]):
            raise ValueError(f"{name} has no effect with {given[0]}: {reason}; leave it out")
        return self

    def _useless_settings(self, source: str) -> list[tuple[str, str]]:
        """List the settings that would be ignored, each with the reason."""
        useless: list[tuple[str, str]] = []
        if source not in _NETWORKS:
            made = "its poses are made already"
            names = ("images", "detections", "padding")
            useless += [(name, made) for name in names if getattr(self, name) is not None]
            useless += [] if self.flip_test else [("flip_test", made)]
        if source != "store":
            of_store = [n for n in ("store_cache", "teacher_name") if getattr(self, n) is not None]
            useless += [(name, "it is for a store") for name in of_store]
        if source != "teacher" and self.teacher_settings != TeacherSettings():
            useless.append(("teacher_settings", "they are for a teacher"))
        if source == "predictions" and self.keypoint_threshold != DEFAULT_THRESHOLD:
            useless.append(("keypoint_threshold", "its poses have their score"))
        skeleton_only = PeopleSettings(skeleton=self.people.skeleton)
        if self.annotations is None and self.people != skeleton_only:
            useless.append(("people", "without annotations the store's own people count"))
        return useless


class CompareConfig(StageConfig):
    """All settings of ``distil compare``."""

    annotations: Path
    images: Path
    arms: tuple[tuple[str, Path], ...]
    """(name, run folder) of students; the same name again is the same arm under another seed."""
    teacher: Path | None = None
    teacher_settings: TeacherSettings = TeacherSettings(flip_test=True)
    mean_pose: Path | None = None
    """Training annotations, whose mean pose is put into every box: what a network must beat."""
    people: PeopleSettings = PeopleSettings()
    seed: int = Field(0, ge=0)
    """Of the bootstrap."""
    output: Path | None = None
    """JSON file for all figures."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.arms:
            raise ValueError("nothing to compare; name arms as name=run_folder")
        counts = {name: self.seeds_of(name) for name, _ in self.arms}
        if len(set(counts.values())) > 1:
            raise ValueError(f"arms need as many run folders each (one per seed), got {counts}")
        return self

    def seeds_of(self, name: str) -> int:
        return sum(other == name for other, _ in self.arms)


class ShowConfig(StageConfig):
    """All settings of ``distil show``."""

    store: StoreLocation
    teacher_name: str | None = None
    """None: the only one."""
    output: Path
    """The PNG file to write."""
    images: Path | None = None
    """None: the image folder that the store was made from."""
    num_people: int = Field(8, ge=1)
    """Rows of the sheet; fewer where the store holds fewer."""
    num_views: int = Field(3, ge=0)
    """Augmented views shown of each person; fewer where the store holds fewer."""
    seed: int = Field(0, ge=0)
    """Chooses the people."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.output.suffix.lower() != ".png":
            raise ValueError(f"output must be a file name that ends in .png, got {self.output}")
        return self
