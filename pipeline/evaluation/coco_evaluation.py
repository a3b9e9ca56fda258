"""AP and AR of predicted poses, computed by pycocotools over all images of the annotation file.

The ground truth is built in memory from ``People``, with the ignore regions on which COCO
disregards detections. Spec: https://cocodataset.org/#keypoints-eval
"""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from pipeline.coco.people import People
from pipeline.coco.records import KeypointResult
from pipeline.coco.result_files import check_results
from pipeline.coco.skeletons import oks_sigmas


@dataclass(frozen=True)
class CocoFigures:
    """The ten figures of COCO keypoint evaluation, in [0, 1]; None: there are no such people."""

    AP: float | None
    AP50: float | None
    AP75: float | None
    APM: float | None
    APL: float | None
    AR: float | None
    AR50: float | None
    AR75: float | None
    ARM: float | None
    ARL: float | None

    def as_dict(self) -> dict[str, float | None]:
        """Return the figures by name, in COCO's order."""
        return asdict(self)


def evaluate_results(people: People, results: Sequence[KeypointResult]) -> CocoFigures:
    """Compute the COCO figures of these results; no result at all gives 0.

    Raises:
        PeopleError: a result contradicts the people.
        ConfigError: the skeleton has no OKS fall-offs.
    """
    sigmas = oks_sigmas(people.skeleton)
    checked = check_results(results, people, "results")
    truth = coco_ground_truth(people)
    # pycocotools prints its progress; a wild keypoint overflows to OKS 0, as it should.
    with contextlib.redirect_stdout(io.StringIO()), np.errstate(over="ignore"):
        evaluation = COCOeval(truth, _detected(truth, checked), iouType="keypoints")
        evaluation.params.kpt_oks_sigmas = sigmas
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    # pycocotools returns -1 where there is nobody to find.
    return CocoFigures(*(float(s) if s >= 0 else None for s in evaluation.stats))


def coco_ground_truth(people: People) -> COCO:
    """Build the pycocotools ground truth: all images, the instances and the ignore regions.

    Within an image instances come first, each group by annotation id; the id is the annotation's.
    """
    annotations = [*_instances(people), *_ignore_regions(people)]
    _replace_id_zero(annotations)
    skeleton = people.skeleton
    category = {
        "id": people.category_id,
        "name": "person",
        "keypoints": list(skeleton.keypoint_names),
        "skeleton": [[a + 1, b + 1] for a, b in skeleton.edges],
    }
    images = [
        {"id": int(image_id), "file_name": name, "height": int(height), "width": int(width)}
        for image_id, name, (height, width) in zip(
            people.image_id, people.image_name, people.image_size_hw, strict=True
        )
    ]
    return _indexed({"images": images, "annotations": annotations, "categories": [category]})


def _instances(people: People) -> list[dict[str, Any]]:
    keypoints = np.nan_to_num(people.keypoints.astype(np.float64), nan=0.0)
    num_labelled = people.is_labelled.sum(axis=1)
    return [
        {
            "id": int(people.instance_id[row]),
            "image_id": int(people.image_id[people.image_index[row]]),
            "category_id": people.category_id,
            "bbox": people.bbox_xywh[row].tolist(),
            "area": float(people.area[row]),
            "iscrowd": 0,
            "keypoints": keypoints[row].ravel().tolist(),
            "num_keypoints": int(num_labelled[row]),
        }
        for row in range(people.num_instances)
    ]


def _ignore_regions(people: People) -> list[dict[str, Any]]:
    ignored = people.ignored
    # Without labelled keypoints pycocotools measures the distance to twice the box.
    no_keypoints = [0.0] * (3 * people.skeleton.num_keypoints)
    return [
        {
            "id": int(ignored.annotation_id[row]),
            "image_id": int(people.image_id[ignored.image_index[row]]),
            "category_id": people.category_id,
            "bbox": ignored.bbox_xywh[row].tolist(),
            "area": float(ignored.area[row]),
            "iscrowd": int(ignored.is_crowd[row]),
            "keypoints": no_keypoints,
            "num_keypoints": int(ignored.num_keypoints[row]),
        }
        for row in range(len(ignored.annotation_id))
    ]


def _replace_id_zero(annotations: list[dict[str, Any]]) -> None:
    # pycocotools marks an unmatched pose by 0, so a person of id 0 could never be found.
    free_id = max((annotation["id"] for annotation in annotations), default=0) + 1
    for annotation in annotations:
        if annotation["id"] == 0:
            annotation["id"] = max(free_id, 1)


def _detected(truth: COCO, results: list[KeypointResult]) -> COCO:
    if not results:  # loadRes finds the kind of results from the first one
        return _indexed({**cast(dict[str, Any], truth.dataset), "annotations": []})
    return truth.loadRes(cast(Any, results))


def _indexed(dataset: dict[str, Any]) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = cast(Any, dataset)
        coco.createIndex()
    return coco
