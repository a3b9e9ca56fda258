"""A small COCO keypoint document, ways to change it, and its reading."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.coco.people import People
from pipeline.coco.read_people import read_people
from pipeline.settings import PeopleSettings

Json = dict[str, Any]
PLAIN = PeopleSettings()


def annotation(annotation_id: int, image_id: int = 1, **fields: Any) -> Json:
    """Return a person with two labelled keypoints of three."""
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": 1,
        "iscrowd": 0,
        "num_keypoints": 2,
        "bbox": [10.0, 5.0, 20.0, 10.0],
        "area": 120.0,
        "keypoints": [12, 7, 2, 20.5, 9, 1, 0, 0, 0],
        **fields,
    }


def document() -> Json:
    """Two images, three people, a crowd and a person without keypoints; nothing in order."""
    nobody: Json = {"num_keypoints": 0, "keypoints": [0] * 9}
    return {
        "categories": [{"id": 1, "name": "person", "keypoints": ["nose", "left_eye", "right_eye"]}],
        "images": [
            {"id": 7, "file_name": "b/two.png", "width": 64, "height": 48},
            {"id": 1, "file_name": "one.png", "width": 40, "height": 30},
        ],
        "annotations": [
            annotation(30, image_id=7),
            annotation(12),
            annotation(11, **nobody),
            annotation(10),
            annotation(9, iscrowd=1, **nobody),
        ],
    }


def read(
    tmp_path: Path, content: object, settings: PeopleSettings = PLAIN, folder: Path | None = None
) -> People:
    """Write a document as an annotation file, and read it."""
    path = tmp_path / "people.json"
    path.write_text(json.dumps(content))
    return read_people(path, folder, settings)


def changed(change: Callable[[Json], object]) -> Json:
    """Return the document after a change."""
    content = document()
    change(content)
    return content


def with_person(**fields: Any) -> Json:
    """Change the annotation 12; a field of None is left out."""
    content = document()
    person = content["annotations"][1] | fields
    content["annotations"][1] = {name: value for name, value in person.items() if value is not None}
    return content
