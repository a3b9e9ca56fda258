"""Teacher store -> its teacher's poses of view 0, as COCO keypoint results for any tool."""

import json
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from pipeline.coco.poses import ScoreRule, coco_results
from pipeline.config import StageConfig
from pipeline.evaluation.stored_poses import describe_missing, read_stored_poses
from pipeline.prediction.pose_scores import instance_scores
from pipeline.progress import OnProgress, summed
from pipeline.storage.files import publish
from pipeline.storage.folder import StoreLocation
from pipeline.teacher_store.reader import TeacherStore


class StoreExportConfig(StageConfig):
    """All settings of ``distil store export``."""

    store: StoreLocation
    teacher_name: str | None = None
    """None: the only one."""
    output: Path
    """The JSON file to write."""
    keypoint_threshold: float = 0.2
    """Keypoint scores above it are averaged to a pose's score, as ``distil evaluate`` does."""
    batch_size: int = Field(64, ge=1)


@dataclass(frozen=True)
class ExportResult:
    """What an export left."""

    output: Path
    num_poses: int
    missing: str | None
    """How many people have no pose, and why; None if all have one."""


def store_export(
    config: StoreExportConfig, on_progress: OnProgress = lambda *_: None
) -> ExportResult:
    """Write the stored poses of view 0, the file that ``evaluate --predictions`` takes.

    on_progress: told how many poses are done, and how many people there are.

    Raises:
        StoreError: the store is incomplete or damaged; nothing is written.
    """
    store = TeacherStore.open(config.store, config.teacher_name)
    count = summed(on_progress, store.people.num_instances)
    poses = read_stored_poses(store, config.batch_size, count)
    scores = instance_scores(poses, ScoreRule(threshold=config.keypoint_threshold))
    results = coco_results(poses, scores, store.people.category_id)
    publish(config.output, json.dumps(results).encode())
    return ExportResult(config.output, len(results), describe_missing(store))
