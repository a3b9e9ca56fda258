"""Drawn people are reproducible, and their annotations say what the image shows."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from pipeline.drawn.canvas import Canvas, Covering, Light, Material, paint_capsules
from pipeline.drawn.clothes import sample_clothes
from pipeline.drawn.figure import paint_figure
from pipeline.drawn.head import paint_head
from pipeline.drawn.parts import label_keypoints, place_figure
from pipeline.drawn.people import DrawnPerson, DrawnScene, draw_scene, write_drawn_people
from pipeline.drawn.skeleton import Joint, PosedBody, sample_body
from pipeline.errors import ConfigError

NUM_SCENES = 48
FLAT_LIGHT = Light(np.array([0, 0, 1], np.float32), ambient=1.0, outline=0.0)


@pytest.fixture(scope="module")
def scenes() -> list[DrawnScene]:
    """The first images of a seed."""
    return [draw_scene(5, index) for index in range(NUM_SCENES)]


@pytest.fixture(scope="module")
def people(scenes: list[DrawnScene]) -> list[DrawnPerson]:
    """All people of those images."""
    return [person for scene in scenes for person in scene.annotations]


@pytest.fixture(scope="module")
def bodies() -> list[PosedBody]:
    """Skeletons alone, in statures."""
    return [sample_body(np.random.default_rng(seed)) for seed in range(300)]


def test_a_scene_depends_on_its_seed_and_index_alone(scenes: list[DrawnScene]) -> None:
    for index in (7, 2, 30):
        np.random.seed(index)  # noqa: NPY002 - the global stream must not matter
        again = draw_scene(5, index)
        np.testing.assert_array_equal(again.image, scenes[index].image)
        assert len(again.annotations) == len(scenes[index].annotations)
        for person, other in zip(again.annotations, scenes[index].annotations, strict=True):
            np.testing.assert_array_equal(person.keypoints, other.keypoints)
            assert (person.bbox_xywh, person.area) == (other.bbox_xywh, other.area)


def test_another_seed_or_index_draws_another_scene(scenes: list[DrawnScene]) -> None:
    digests = {hashlib.sha256(scene.image.tobytes()).digest() for scene in scenes}
    digests.add(hashlib.sha256(draw_scene(6, 0).image.tobytes()).digest())
    assert len(digests) == NUM_SCENES + 1


@pytest.mark.parametrize(("seed", "index"), [(-1, 0), (0, -1)])
def test_a_negative_seed_or_index_is_refused(seed: int, index: int) -> None:
    """A counter-based generator has no negative keys."""
    with pytest.raises(ConfigError, match=f"got seed {seed} and index {index}"):
        draw_scene(seed, index)


def test_every_labelled_keypoint_lies_inside_its_image(scenes: list[DrawnScene]) -> None:
    for scene in scenes:
        height, width = scene.image.shape[:2]
        for person in scene.annotations:
            x, y, visibility = person.keypoints.T
            assert set(visibility) <= {0, 1, 2}
            assert not person.keypoints[visibility == 0].any()
            assert ((x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)).all()


def test_a_box_holds_the_visible_keypoints_and_stays_in_the_image(scenes: list[DrawnScene]) -> None:
    for scene in scenes:
        height, width = scene.image.shape[:2]
        for person in scene.annotations:
            left, top, wide, high = person.bbox_xywh
            assert left >= 0
            assert top >= 0
            assert left + wide <= width
            assert top + high <= height
            assert 0 < person.area <= wide * high
            x, y = person.keypoints[person.keypoints[:, 2] == 2, :2].T
            assert ((x >= left - 1) & (x <= left + wide)).all()
            assert ((y >= top - 1) & (y <= top + high)).all()


def test_the_mixture_holds_what_makes_people_hard(
    scenes: list[DrawnScene], people: list[DrawnPerson]
) -> None:
    """Truncation, occlusion, back and side views, and several people in an image all occur."""
    labelled = [person for person in people if person.num_keypoints]
    views = [person.view for person in people]
    assert {scene.image.shape[:2] for scene in scenes} != {scenes[0].image.shape[:2]}
    assert sum(len(scene.annotations) > 1 for scene in scenes) > NUM_SCENES // 4
    assert sum((person.keypoints[:, 2] == 1).any() for person in people) > len(people) // 5
    assert sum((person.keypoints[5:, 2] == 0).any() for person in people) > len(people) // 20
    assert sum((person.keypoints[5:, 2] > 0).all() for person in people) > len(people) // 3
    assert views.count("front") > len(views) // 2
    assert views.count("back") > len(views) // 20
    assert views.count("side") > len(views) // 20
    assert len(labelled) > 0.9 * len(people)
    assert np.median([max(person.bbox_xywh[2:]) for person in people]) > 90


def test_left_is_the_persons_left(bodies: list[PosedBody]) -> None:
    """Facing the camera, a left shoulder or hip is on the image's right; seen from behind, left."""
    for body in bodies:
        up = body.joints[Joint.PELVIS, :2] - body.joints[Joint.NECK, :2]
        if np.hypot(*up) < 0.2 or body.view == "side":
            continue
        rightwards = np.array([up[1], -up[0]])  # the image's right for an upright person
        across = body.joints[Joint.LEFT_HIP, :2] - body.joints[Joint.RIGHT_HIP, :2]
        assert (across @ rightwards > 0) == (body.view == "front")


def test_a_face_shows_from_the_front_and_not_from_behind(people: list[DrawnPerson]) -> None:
    eyes = {
        view: [p.keypoints[1:3, 2] for p in people if p.view == view] for view in ("front", "back")
    }
    assert np.mean(np.array(eyes["front"]) == 2) > 0.5
    assert np.mean(np.array(eyes["back"]) == 2) < 0.1


def test_limbs_have_the_proportions_of_people(bodies: list[PosedBody]) -> None:
    """Left equals right, and every ratio stays within the limits of a person's build."""
    chains = {
        "upper arm": (Joint.LEFT_SHOULDER, Joint.LEFT_ELBOW, 0.145, 0.20),
        "forearm": (Joint.LEFT_ELBOW, Joint.LEFT_WRIST, 0.125, 0.175),
        "thigh": (Joint.LEFT_HIP, Joint.LEFT_KNEE, 0.205, 0.27),
        "shin": (Joint.LEFT_KNEE, Joint.LEFT_ANKLE, 0.195, 0.26),
    }
    for body in bodies:
        for start, end, shortest, longest in chains.values():
            left = np.linalg.norm(body.joints[end] - body.joints[start])
            right = np.linalg.norm(body.joints[end + 1] - body.joints[start + 1])
            assert left == pytest.approx(right)
            assert shortest < left < longest


def test_knees_and_elbows_stay_within_their_limits(bodies: list[PosedBody]) -> None:
    """No elbow bends beyond 140 degrees and no knee beyond 130."""
    joints = np.stack([body.joints for body in bodies])
    for middle, limit in ((Joint.LEFT_ELBOW, 140), (Joint.LEFT_KNEE, 130)):
        for side in (0, 1):
            above = joints[:, middle + side] - joints[:, middle + side - 2]
            below = joints[:, middle + side + 2] - joints[:, middle + side]
            lengths = np.linalg.norm(above, axis=1) * np.linalg.norm(below, axis=1)
            bends = np.degrees(np.arccos(((above * below).sum(axis=1) / lengths).clip(-1, 1)))
            assert bends.max() < limit
            assert bends.max() > 60


def test_a_capsule_is_drawn_where_its_ends_are() -> None:
    """The centroid of what is painted is the capsule's middle, to a twentieth of a pixel."""
    canvas = Canvas(np.zeros((60, 80, 3), np.float32), np.ones((60, 80), np.float32))
    white = Material(np.ones(3, np.float32), np.ones(3, np.float32))
    row = np.array([[20.3, 15.8, 55.6, 41.1, 5.0, 5.0]])
    paint_capsules(canvas, row, Covering(white, white, 2), FLAT_LIGHT, 32)
    y, x = np.mgrid[:60, :80]
    weights = (canvas.pixels[..., 0] > 0) * canvas.pixels[..., 0].clip(0, None)
    centroid = [(weights * axis).sum() / weights.sum() for axis in (x, y)]
    np.testing.assert_allclose(centroid, [(20.3 + 55.6) / 2, (15.8 + 41.1) / 2], atol=0.05)


def test_pupils_are_drawn_where_the_eyes_are_annotated() -> None:
    """The darkest spot near an eye that shows is within half a pixel of its keypoint."""
    checked = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        body = sample_body(rng)
        clothes = sample_clothes(rng, 220.0)
        figure = place_figure(body, clothes, 220.0, np.array([150.37, 160.71]))
        canvas = Canvas(np.ones((320, 300, 3), np.float32), np.ones((320, 300), np.float32))
        paint_head(canvas, figure, FLAT_LIGHT, 1)
        keypoints = label_keypoints(figure, canvas.labels, 1)
        if body.head_rotation[2, 2] < 0.93 or (keypoints[1:3, 2] != 2).any():
            continue
        for x, y in keypoints[1:3, :2]:
            rows, columns = np.mgrid[round(y) - 4 : round(y) + 5, round(x) - 4 : round(x) + 5]
            window = canvas.pixels[rows, columns].max(axis=-1)
            dark = (0.5 - window).clip(0, None) * (np.hypot(columns - x, rows - y) < 3)
            centre = [(dark * axis).sum() / dark.sum() for axis in (columns, rows)]
            assert np.hypot(centre[0] - x, centre[1] - y) < 0.5
            checked += 1
    assert checked >= 8


def test_a_covered_joint_is_labelled_hidden() -> None:
    """Painting over the wrist turns its visibility from 2 to 1 and leaves its place alone."""
    rng = np.random.default_rng(3)
    canvas = Canvas(np.zeros((300, 300, 3), np.float32), np.ones((300, 300), np.float32))
    figure = place_figure(
        sample_body(rng), sample_clothes(rng, 180.0), 180.0, np.array([150.0, 160.0])
    )
    paint_figure(canvas, figure, FLAT_LIGHT, 1)
    before = label_keypoints(figure, canvas.labels, 1)
    shown = int(np.flatnonzero(before[:, 2] == 2)[-1])
    x, y = np.rint(before[shown, :2]).astype(int)
    canvas.labels[y - 1 : y + 2, x - 1 : x + 2] = 0
    after = label_keypoints(figure, canvas.labels, 1)
    assert after[shown].tolist() == [*before[shown, :2], 1]


def test_written_people_load_as_coco_and_hold_the_drawn_annotations(tmp_path: Path) -> None:
    path = write_drawn_people(tmp_path, 4, seed=5, first_index=2)
    coco = COCO(str(path))
    assert coco.getImgIds() == [2, 3, 4, 5]
    assert coco.loadCats(coco.getCatIds())[0]["name"] == "person"
    for record in coco.loadImgs(coco.getImgIds()):
        scene = draw_scene(5, record["id"])
        with Image.open(tmp_path / "images" / record["file_name"]) as image:
            assert image.size == (record["width"], record["height"])
            error = np.abs(np.asarray(image, np.float64) - scene.image)
        assert error.mean() < 8  # JPEG, not another picture
        found = [dict(entry) for entry in coco.loadAnns(coco.getAnnIds(imgIds=record["id"]))]
        assert len(found) == len(scene.annotations)
        for annotation, person in zip(found, scene.annotations, strict=True):
            keypoints = np.asarray(annotation["keypoints"], np.float64).reshape(17, 3)
            np.testing.assert_allclose(keypoints, person.keypoints, atol=1e-3)
            assert annotation["num_keypoints"] == (keypoints[:, 2] > 0).sum()
            assert annotation["bbox"] == list(person.bbox_xywh)


def test_writing_twice_gives_the_same_bytes_and_no_other_files(tmp_path: Path) -> None:
    for name in ("first", "second"):
        assert (
            write_drawn_people(tmp_path / name, 3, seed=9) == tmp_path / name / "annotations.json"
        )
    first = sorted(path for path in (tmp_path / "first").rglob("*") if path.is_file())
    names = [path.relative_to(tmp_path / "first").as_posix() for path in first]
    assert names == ["annotations.json", *(f"images/{index:06d}.jpg" for index in range(3))]
    for path in first:
        twin = tmp_path / "second" / path.relative_to(tmp_path / "first")
        assert path.read_bytes() == twin.read_bytes()


def test_an_image_is_the_same_in_every_file_it_is_written_to(tmp_path: Path) -> None:
    write_drawn_people(tmp_path / "all", 3, seed=9)
    write_drawn_people(tmp_path / "last", 1, seed=9, first_index=2)
    name = "images/000002.jpg"
    assert (tmp_path / "all" / name).read_bytes() == (tmp_path / "last" / name).read_bytes()
    texts = [(tmp_path / part / "annotations.json").read_text() for part in ("all", "last")]
    boxes = [
        [entry["bbox"] for entry in json.loads(text)["annotations"] if entry["image_id"] == 2]
        for text in texts
    ]
    assert boxes[0] == boxes[1]
