"""Open a store's plan: people and views, each array compared with the identity.

Writer (to resume) and reader open a store through here and through ``store_schemas``, which parses
and bounds all metadata.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.coco.people import People
from pipeline.storage.folder import StoreFolder
from pipeline.teacher_store.plan import ViewPlan, check_mirrored, people_of
from store_schemas.checking import check_digests
from store_schemas.identity import array_sha256
from store_schemas.layout import IMAGE_SHA256, TeacherLayout
from store_schemas.reading import check_document, read_array
from store_schemas.root_metadata import TeacherEntry


@dataclass(frozen=True)
class StoreLayout(TeacherLayout):
    """Layout of a teacher's part of a store in a folder that can also be written."""

    folder: StoreFolder


def layout_of(folder: StoreFolder, entry: TeacherEntry) -> StoreLayout:
    """Return the layout that an entry's identity implies, or raise SchemaError."""
    return StoreLayout(folder, entry.teacher, entry.identity)


@dataclass(frozen=True)
class StoredPlan:
    """People and views as the plan wrote them."""

    people: People
    image_sha256: NDArray[np.uint8]  # (M, 32)
    views: ViewPlan


def read_plan(layout: StoreLayout, *, checks_documents: bool = True) -> StoredPlan:
    """Return people and views, each array compared with the identity's sha256 of it.

    Args:
        checks_documents: Whether the metadata of groups and of the teacher's arrays are compared
            too, not only those of the arrays that are read.

    Raises:
        IdentityError: an array was altered; names the field.
        SchemaError: metadata or arrays contradict schema or identity.
        CorruptError: bytes are missing, torn or altered.
    """
    people, image_sha256 = read_people_of_plan(layout, checks_documents=checks_documents)
    arrays = _read_section(layout, "views")
    section = layout.identity.views
    views = ViewPlan(
        image_to_crop=arrays["image_to_crop"],
        is_mirrored=arrays["is_mirrored"],
        input_size_hw=section.input_size_hw,
        seed=section.seed,
        recipe=section.recipe,
    )
    check_mirrored(views.image_to_crop, views.is_mirrored)
    return StoredPlan(people, image_sha256, views)


def read_people_of_plan(
    layout: StoreLayout, *, checks_documents: bool = True
) -> tuple[People, NDArray[np.uint8]]:
    """Return people and image digests (M, 32); arguments and errors as for ``read_plan``."""
    if checks_documents:
        for path, document in (layout.group_documents() | layout.shard_documents()).items():
            check_document(layout.folder, path, document)
    arrays = _read_section(layout, "people")
    return people_of(layout.identity.people, arrays), arrays[IMAGE_SHA256]


def _read_section(layout: StoreLayout, section: str) -> dict[str, NDArray[Any]]:
    specs = layout.plan_specs(f"{section}/")
    arrays = {spec.path: read_array(layout.folder, spec) for spec in specs}
    check_digests(layout, {path: array_sha256(values) for path, values in arrays.items()})
    return {path.removeprefix(f"{section}/"): values for path, values in arrays.items()}
