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
    evaluation = _evaluated(people, results)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.accumulate()
        evaluation.summarize()
    # pycocotools returns -1 where there is nobody to find.
    return CocoFigures(*(float(s) if s >= 0 else None for s in evaluation.stats))


def evaluated_images(people: People, results: Sequence[KeypointResult]) -> list[dict[str, Any]]:
    """Return pycocotools' record of every image that has people or poses, for people of any size.

    A record has ``image_id``, ``dtScores`` (D), ``dtMatches`` and ``dtIgnore`` (10, D) by falling
    score, and ``gtIgnore``.

    Raises:
        PeopleError: a result contradicts the people.
        ConfigError: the skeleton has no OKS fall-offs.
    """
    evaluation = _evaluated(people, results)
    # Records go by category, then by range of areas (the first: all), then by image.
    of_all_areas = cast(list[Any], evaluation.evalImgs)[: len(people.image_id)]
    return [record for record in of_all_areas if record is not None]


def _evaluated(people: People, results: Sequence[KeypointResult]) -> COCOeval:
    sigmas = oks_sigmas(people.skeleton)
    checked = check_results(results, people, "results")
    truth = coco_ground_truth(people)
    # pycocotools prints its progress; a wild keypoint overflows to OKS 0, as it should.
    with contextlib.redirect_stdout(io.StringIO()), np.errstate(over="ignore"):
        evaluation = COCOeval(truth, _detected(truth, checked), iouType="keypoints")
        evaluation.params.kpt_oks_sigmas = sigmas
        evaluation.evaluate()
    return evaluation


def coco_ground_truth(people: People) -> COCO:
    """Build the pycocotools ground truth: all images, the instances and the ignore regions.

    Within an image instances come first, each group by annotation id; the id is the annotation's.
    """
    count, ignored = people.num_instances, people.ignored
    ids = np.concatenate([people.instance_id, ignored.annotation_id])
    # pycocotools marks an unmatched pose by 0, so a person of id 0 could never be found.
    ids[ids == 0] = ids.max(initial=0) + 1
    keypoints = np.zeros((len(ids), 3 * people.skeleton.num_keypoints))
    # Without labelled keypoints pycocotools measures the distance to twice the box.
    keypoints[:count] = np.nan_to_num(people.keypoints.reshape(count, keypoints.shape[1]))
    columns = {
        "id": ids,
        "image_id": people.image_id[np.concatenate([people.image_index, ignored.image_index])],
        "category_id": np.full(len(ids), people.category_id),
        "bbox": np.concatenate([people.bbox_xywh, ignored.bbox_xywh]),
        "area": np.concatenate([people.area, ignored.area]),
        "iscrowd": np.concatenate([np.zeros(count, np.int64), ignored.is_crowd]),
        "keypoints": keypoints,
        "num_keypoints": np.concatenate([people.is_labelled.sum(axis=1), ignored.num_keypoints]),
    }
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    annotations = [dict(zip(columns, row, strict=True)) for row in rows]
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
