"""The skeleton that a COCO keypoint category describes, and what settings add to it.

The category gives names and edges; left and right are paired by name, or by settings. OKS sigmas
and body halves are no part of the format: COCO's 17 keypoints have them built in (pycocotools
``Params.setKpParams``), other skeletons take them from ``SkeletonSettings``.
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from pipeline.coco.people import Skeleton
from pipeline.coco.records import CategoryRecord, Entries
from pipeline.errors import ConfigError, PeopleError
from pipeline.settings import SkeletonSettings
from pipeline.wording import counted

COCO_KEYPOINT_NAMES = (
    *("nose", "left_eye", "right_eye", "left_ear", "right_ear"),
    *("left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist"),
    *("left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle"),
)
COCO_SIGMAS = tuple(
    tenths / 10
    for tenths in (
        *(0.26, 0.25, 0.25, 0.35, 0.35),
        *(0.79, 0.79, 0.72, 0.72, 0.62, 0.62),
        *(1.07, 1.07, 0.87, 0.87, 0.89, 0.89),
    )
)
COCO_EDGES = (
    *((16, 14), (14, 12), (17, 15), (15, 13), (12, 13), (6, 12), (7, 13), (6, 7), (6, 8), (7, 9)),
    *((8, 10), (9, 11), (2, 3), (1, 2), (1, 3), (2, 4), (3, 5), (4, 6), (5, 7)),
)
"""Pairs of keypoints that COCO's category joins, counted from 1 as there."""
_LEFT_AND_RIGHT = {"left": "right", "Left": "Right", "LEFT": "RIGHT", "l": "r", "L": "R"}
_OTHER_SIDE = _LEFT_AND_RIGHT | {right: left for left, right in _LEFT_AND_RIGHT.items()}
_LETTERS = r"[^\W\d_]"
_WORD = re.compile(
    rf"(?<!{_LETTERS})(?:left|right|Left|Right|LEFT|RIGHT)|(?<=[a-z\d])(?:Left|Right)"
)
_LETTER = re.compile(  # L.Eye and eye_l; LEye; EyeL. Not LIP, Lip or L1
    r"(?<![^\W_])[lrLR](?=[\W_])|(?<=[\W_])[lrLR](?![^\W_])"
    r"|(?<![^\W_])[lrLR](?=[A-Z][a-z])|(?<=[a-z])[LR](?![^\W_])"
)
_CATEGORIES = TypeAdapter(list[CategoryRecord])


def skeleton_of_category(category: Mapping[str, Any], settings: SkeletonSettings) -> Skeleton:
    """Build the skeleton of a keypoint category, an object of COCO JSON.

    Without sigmas or halves, built in or set, the skeleton has empty ones; the caller reports what
    is then switched off.

    Raises:
        PeopleError: the category is no ``CategoryRecord``, or its names and edges make no skeleton.
        ConfigError: the settings do not fit the keypoints.
    """
    record = _category_record(category)
    names = tuple(record["keypoints"])
    is_coco = names == COCO_KEYPOINT_NAMES
    sigmas = settings.sigmas or (COCO_SIGMAS if is_coco else ())
    if settings.sigmas is not None and len(settings.sigmas) != len(names):
        raise ConfigError(
            f"sigmas holds {counted(len(settings.sigmas), 'number')}, but the annotations have "
            f"{counted(len(names), 'keypoint')}: give one per keypoint, in their order"
        )
    upper, lower = settings.upper_body, settings.lower_body
    if is_coco and not upper and not lower:
        upper, lower = names[:11], names[11:]
    upper_body, lower_body = _halves(upper, lower, names)
    return Skeleton(
        keypoint_names=names,
        edges=tuple((start - 1, end - 1) for start, end in record.get("skeleton") or []),
        flip_indices=(
            flip_indices_of_names(names)
            if settings.flip_pairs is None
            else _flip_indices_of_pairs(settings.flip_pairs, names)
        ),
        sigmas=sigmas,
        upper_body=upper_body,
        lower_body=lower_body,
    )


def coco_skeleton() -> Skeleton:
    """Return the skeleton of COCO's 17 keypoints, for networks whose file names none."""
    category = {
        "id": 1,
        "name": "person",
        "keypoints": list(COCO_KEYPOINT_NAMES),
        "skeleton": [list(edge) for edge in COCO_EDGES],
    }
    return skeleton_of_category(category, SkeletonSettings())


def flip_indices_of_names(names: Sequence[str]) -> tuple[int, ...]:
    """Pair the names that differ in their side only, and others with themselves.

    A side is the word left or right, or the letter l or r, as a word of the name: ``left_eye``,
    ``eye-right``, ``Left Eye``, ``LeftEye``, ``L.Eye``, ``LEye``. A name with left or right that
    has no mirror is refused: taken for its own mirror, it would teach a flipped person the wrong
    side. A letter without its counterpart is no side.
    """
    index_of_name = {name: index for index, name in enumerate(names)}
    return tuple(_mirror_index(name, index_of_name) for name in names)


def _mirror_index(name: str, index_of_name: dict[str, int]) -> int:
    mirrored = _mirrored_name(name)
    advice = "rename or add one in the category's keypoints, or give flip_pairs in people.skeleton"
    folded = name.lower()
    has_word = "left" in folded or "right" in folded
    if mirrored == name:
        if has_word:
            raise PeopleError(
                f"keypoint {name!r} has a side that cannot be paired: expected a side as in "
                f"left_x, x_left or LeftX; {advice}"
            )
        return index_of_name[name]
    if mirrored in index_of_name:
        return index_of_name[mirrored]
    if has_word or mirrored.lower() in {other.lower() for other in index_of_name}:
        raise PeopleError(
            f"keypoint {name!r} has no mirror: expected a keypoint {mirrored!r} beside it; {advice}"
        )
    return index_of_name[name]


def _mirrored_name(name: str) -> str:
    """Exchange the sides in a name; words count before letters. Twice, it gives the name."""
    mirrored = _WORD.sub(_other_side, name)
    return mirrored if mirrored != name else _LETTER.sub(_other_side, name)


def _other_side(side: re.Match[str]) -> str:
    return _OTHER_SIDE[side.group()]


def _flip_indices_of_pairs(
    pairs: Sequence[tuple[str, str]], names: tuple[str, ...]
) -> tuple[int, ...]:
    _check_names("flip_pairs", tuple(itertools.chain(*pairs)), names, "is in one pair")
    mirrored = {name: name for name in names}
    for one, other in pairs:
        mirrored[one], mirrored[other] = other, one
    return tuple(names.index(mirrored[name]) for name in names)


def _category_record(category: Mapping[str, Any]) -> CategoryRecord:
    """Check that the category names its keypoints once each, and joins only those."""
    entries = Entries(lambda _: f"category {category.get('name')!r}")
    record = entries.as_records([category], _CATEGORIES)[0]
    names = record["keypoints"]
    for name in names:
        if names.count(name) > 1:
            raise entries.refusal(0, f"names keypoint {name!r} twice, expected distinct names")
    for edge in record.get("skeleton") or []:
        if max(edge) > len(names):
            raise entries.refusal(
                0,
                f"skeleton holds {edge}, expected pairs of keypoints, counted from 1 to "
                f"{len(names)}",
            )
    return record


def _halves(
    upper: tuple[str, ...], lower: tuple[str, ...], names: tuple[str, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    if bool(upper) != bool(lower):
        missing, given = ("lower_body", "upper_body") if upper else ("upper_body", "lower_body")
        raise ConfigError(f"{given} is set without {missing}: set both halves, or neither")
    _check_names("upper_body and lower_body", upper + lower, names, "belongs to one half")
    return tuple(map(names.index, upper)), tuple(map(names.index, lower))


def _check_names(
    settings: str, given: tuple[str, ...], names: tuple[str, ...], expected: str
) -> None:
    """Refuse names in settings that the keypoints do not have, or that are given twice."""
    for name in given:
        if name not in names:
            raise ConfigError(
                f"{settings} name a keypoint {name!r} that the annotations do not have: expected "
                f"names among {', '.join(names)}"
            )
        if given.count(name) > 1:
            raise ConfigError(f"{settings} name keypoint {name!r} twice: a keypoint {expected}")


def describe_missing_sigmas(skeleton: Skeleton) -> str | None:
    """Return a note that a skeleton without OKS fall-offs has PCK only; None if it has them."""
    if skeleton.sigmas:
        return None
    return (
        "PCK only, no AP, AR or OKS: OKS needs one sigma per keypoint and the skeleton has none; "
        "give sigmas in people.skeleton in --config"
    )


def oks_sigmas(skeleton: Skeleton) -> NDArray[np.float64]:
    """Return the OKS fall-offs, or refuse a skeleton whose fall-offs are unknown.

    Returns: (K,) float64.
    """
    if len(skeleton.sigmas) != skeleton.num_keypoints:
        found = counted(len(skeleton.sigmas), "sigma") if skeleton.sigmas else "no sigmas"
        raise ConfigError(
            f"OKS needs one sigma per keypoint, and the skeleton has {found} for "
            f"{counted(skeleton.num_keypoints, 'keypoint')}; give sigmas in the config"
        )
    return np.array(skeleton.sigmas, dtype=np.float64)
