"""A few people on disk, and what of them can be evaluated: networks, a store, results."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from pipeline.coco.read_people import read_people
from pipeline.coco.skeletons import COCO_KEYPOINT_NAMES, COCO_SIGMAS, flip_indices_of_names
from pipeline.frames.geometry import apply
from pipeline.frames.views import draw_views
from pipeline.models.pose_networks import build_network
from pipeline.runs.checkpoints import CheckpointInfo, save_weights
from pipeline.settings import PeopleSettings, ViewRecipe
from pipeline.storage.folder import LocalFolder
from pipeline.storage.lease import acquire_lease
from pipeline.teacher_store.plan import ViewPlan
from pipeline.teacher_store.writer import NewTeacher, begin_teacher
from stages.settings.evaluation import EvaluateConfig, evaluation_of
from store_schemas.manifest import digest_of_images

SIZE_HW = (128, 96)
NAMES = COCO_KEYPOINT_NAMES


@dataclass(frozen=True)
class Sample:
    """Three images with two people each, on disk."""

    folder: Path

    @property
    def annotations(self) -> Path:
        return self.folder / "people.json"

    @property
    def document(self) -> dict[str, Any]:
        return dict(json.loads(self.annotations.read_text()))

    @property
    def truth(self) -> list[dict[str, Any]]:
        """The annotations as results, without annotation ids."""
        return [
            {"image_id": a["image_id"], "category_id": 1, "keypoints": a["keypoints"], "score": 0.9}
            for a in self.document["annotations"]
        ]

    def write(self, name: str, content: object) -> Path:
        path = self.folder / name
        path.write_text(json.dumps(content))
        return path

    def config(self, **settings: Any) -> EvaluateConfig:
        return evaluation_of({"annotations": self.annotations, **settings})


def draw_sample(folder: Path) -> Sample:
    """Draw two people in each of three images of noise, into a folder."""
    random = np.random.default_rng(3)
    images, annotations = [], []
    for image in range(1, 4):
        pixels = random.integers(0, 256, (160, 240, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{image}.png")
        images.append({"id": image, "file_name": f"{image}.png", "width": 240, "height": 160})
        for person in range(2):
            corner = np.array([20 + 110 * person, 20])
            points = corner + random.uniform(0, 1, (17, 2)) * [80, 110]
            triples = np.column_stack([points, np.full(17, 2.0)])
            annotations.append(
                {
                    "id": 10 * image + person,
                    "image_id": image,
                    "category_id": 1,
                    "bbox": [*corner.tolist(), 80, 110],
                    "area": 5000.0,
                    "iscrowd": 0,
                    "keypoints": triples.ravel().tolist(),
                }
            )
    category = {"id": 1, "name": "person", "keypoints": list(NAMES), "skeleton": []}
    found = Sample(folder)
    found.write(
        "people.json", {"images": images, "annotations": annotations, "categories": [category]}
    )
    return found


def save_network(path: Path, architecture: str = "distilpose-xs", **changes: Any) -> Path:
    """Save a small network with random weights."""
    names = changes.get("keypoint_names", NAMES)
    torch.manual_seed(0)
    network = build_network(architecture, len(names))
    is_teacher = architecture.startswith("tokenpose")
    facts: dict[str, Any] = {
        "kind": "teacher" if is_teacher else "student",
        "architecture": architecture,
        "input_size_hw": SIZE_HW,
        "padding": 1.25,
        "heatmap_size_hw": (64, 48) if is_teacher else None,
        "heatmap_frame": "half-pixel" if is_teacher else None,
        "keypoint_names": names,
        "edges": (),
        "flip_indices": flip_indices_of_names(names),
        "sigmas": COCO_SIGMAS,
        "upper_body": (),
        "lower_body": (),
        "score_rule": "learned",
        "scored_keypoints": (0, 5, 6),
        "store_fingerprint": "f" * 64,
        "seed": 0,
        "epoch": 4,
        "step": 100,
    }
    save_weights(path, network, CheckpointInfo(**{**facts, **changes}))
    return path


def write_store(sample: Sample, *, failed: tuple[int, ...] = (), finish: bool = True) -> Path:
    """Store the truth as if a teacher had seen it in every view."""
    people = read_people(sample.annotations, sample.folder, PeopleSettings())
    views = draw_views(people, ViewRecipe(padding=1.1), 0, 1, SIZE_HW)
    n, v, k = people.num_instances, 2, people.skeleton.num_keypoints
    outputs = np.empty((n, v, k, 4), np.float32)
    outputs[..., 0], outputs[..., 1] = 1 / 255, 0.7
    truth = people.keypoints[:, None, :, :2].astype(np.float64)
    outputs[..., 2:] = apply(views.image_to_crop, np.repeat(truth, v, axis=1))
    status = np.ones((n, v), np.uint8)
    status[list(failed), 0] = 2
    digests = np.zeros((len(people.image_id), 32), np.uint8)
    path = sample.folder / "teacher.zarr"
    folder = LocalFolder(path)
    lease = acquire_lease(folder)
    teacher = NewTeacher(
        name="teacher",
        identity={"sha256": "a" * 64, "flip_test": True, "flip_shift": 1, "decoding": "dark"},
        recipe={},
        provenance={},
        heatmap_size_hw=(64, 48),
        threshold=0.01,
    )
    plan = ViewPlan(views.image_to_crop, views.is_mirrored, SIZE_HW, 0, {"padding": 1.1})
    writer = begin_teacher(folder, lease.run_id, people, digests, plan, teacher)
    if finish:
        images = digest_of_images(digests, people.image_index)
        writer.write_shard(0, np.zeros((n, v, k, 64, 48), np.uint8), outputs, status, images)
        writer.finish()
    lease.release()
    return path


def linear_of(network: Any) -> torch.nn.Linear:
    """Return the last layer of a student; its channel 2 is the score."""
    linear = network.head.linear
    assert isinstance(linear, torch.nn.Linear)
    return linear
