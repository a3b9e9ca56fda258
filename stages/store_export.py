"""Teacher store -> its teacher's poses of view 0, as COCO keypoint results for any tool."""

import json
from dataclasses import dataclass, replace

import numpy as np

from pipeline.coco.poses import NO_ANNOTATION, ScoreRule, coco_results
from pipeline.evaluation.inputs import describe_missing, read_stored_poses
from pipeline.prediction.pose_scores import instance_scores
from pipeline.progress import NO_PROGRESS, Progress, summed
from pipeline.storage.files import publish
from pipeline.teacher_store.reader import TeacherStore
from stages.settings.evaluation import StoreExportConfig


@dataclass(frozen=True)
class ExportResult:
    """Summary of an export."""

    num_poses: int
    missing: str | None
    """Number of people without a pose, and the reason; None if all have one."""


def store_export(config: StoreExportConfig, progress: Progress = NO_PROGRESS) -> ExportResult:
    """Write the stored poses of view 0, the file that ``evaluate --predictions`` takes.

    Where some people are detected, no pose bears an annotation id.

    progress: counts poses; the total is the number of people.

    Raises:
        StoreError: the store is incomplete or damaged; nothing is written.
    """
    store = TeacherStore.open(config.store, config.teacher_name)
    count = summed(progress, store.people.num_instances)
    poses = read_stored_poses(store, config.batch_size, count)
    scores = instance_scores(poses, ScoreRule(threshold=config.keypoint_threshold))
    if store.people.is_detected.any():  # an id in some entries only would be taken for a mistake
        nameless = np.full(poses.num_poses, NO_ANNOTATION)
        poses = replace(poses, annotation_id=nameless)
    results = coco_results(poses, scores, store.people.category_id)
    publish(config.output, json.dumps(results).encode())
    return ExportResult(len(results), describe_missing(store))
