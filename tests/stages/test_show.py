"""``show`` draws any complete store, and says what is missing where it cannot."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.coco.image_files import decode_image, sha256_file
from pipeline.coco.people import IgnoreRegions, People, Skeleton
from pipeline.config import validate_config
from pipeline.errors import ConfigError, ImageError
from pipeline.frames.geometry import (
    apply,
    box_to_crop,
    compose,
    crop_to_heatmap,
    is_mirroring,
    mirror_affine,
    padded_box_size,
    resize_affine,
    view_to_crop,
)
from pipeline.frames.heatmaps import encode_keypoints
from pipeline.pictures.poses import CENTRE_COLOUR, LEFT_COLOUR, RIGHT_COLOUR, write_png
from pipeline.pictures.shown_people import spread_rows
from pipeline.settings import PADDING, HeatmapFrame
from pipeline.storage.folder import LocalFolder
from pipeline.storage.lease import acquire_lease
from pipeline.teacher_store.plan import ViewPlan
from pipeline.teacher_store.reader import TeacherStore
from pipeline.teacher_store.writer import NewTeacher, begin_teacher
from stages.settings.pictures import ShowConfig
from stages.show import TILE_HEIGHT, person_tiles, show
from store_schemas.errors import IncompleteError
from store_schemas.heatmap_codec import quantise_heatmaps
from store_schemas.manifest import digest_of_images
from store_schemas.teacher_store import Status

INPUT_HW, HEATMAP_HW, TILE_HW = (128, 96), (32, 24), (TILE_HEIGHT, 240)
NUM_PEOPLE, NUM_VIEWS = 6, 3
FRAME: HeatmapFrame = "msra"
SKELETON = Skeleton(("nose", "left_wrist", "right_wrist"), ((0, 1), (0, 2)), (0, 2, 1), ())


def some_people() -> People:
    """Six people, two in each of three images; the last one's nose is not labelled."""
    corner = np.tile([[10.0, 10.0], [90.0, 20.0]], (3, 1)) + np.arange(6)[:, None]
    keypoints = np.full((NUM_PEOPLE, 3, 3), 2, np.float32)
    keypoints[..., :2] = corner[:, None] + [[20.0, 8.0], [6.0, 50.0], [34.0, 46.0]]
    keypoints[-1, 0] = (np.nan, np.nan, 0)
    empty = np.zeros(0, np.int64)
    return People(
        skeleton=SKELETON,
        category_id=1,
        image_id=np.arange(3),
        image_name=("a.png", "b.png", "c.png"),
        image_size_hw=np.tile([100, 160], (3, 1)),
        instance_id=np.arange(6) + 1000,
        image_index=np.repeat(np.arange(3), 2),
        bbox_xywh=np.column_stack([corner, np.tile([40.0, 60.0], (6, 1))]),
        area=np.full(6, 1500.0),
        keypoints=keypoints,
        ignored=IgnoreRegions(
            empty, empty, np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.bool_), empty
        ),
    )


def some_views(people: People) -> ViewPlan:
    """View 0 is plain, view 1 its mirror image, view 2 turned."""
    plain = box_to_crop(people.bbox_xywh, INPUT_HW)
    centre = people.bbox_xywh[:, :2] + people.bbox_xywh[:, 2:] / 2
    size = padded_box_size(people.bbox_xywh, INPUT_HW, PADDING)
    turned = view_to_crop(centre, size, np.full(NUM_PEOPLE, 0.4), INPUT_HW)
    affines = np.stack([plain, compose(mirror_affine(INPUT_HW[1]), plain), turned], axis=1)
    return ViewPlan(affines, is_mirroring(affines), INPUT_HW, 0, {})


def seen_keypoints(people: People, views: ViewPlan) -> NDArray[np.float64]:
    """Return (N, V, K, 2), crop pixels: what a teacher that knows all would say."""
    points = np.where(people.is_labelled[..., None], people.keypoints[..., :2], [115.0, 45.0])
    seen = np.stack([apply(views.image_to_crop[:, v], points) for v in range(NUM_VIEWS)], axis=1)
    swapped = seen[:, :, list(SKELETON.flip_indices)]
    return np.where(views.is_mirrored[..., None, None], swapped, seen)


def write_store(
    folder: Path,
    *,
    confidence: float = 0.8,
    status: NDArray[np.uint8] | None = None,
    finish: bool = True,
    provenance: dict[str, str] | None = None,
) -> Path:
    people = some_people()
    views = some_views(people)
    random = np.random.default_rng(0)
    for name in people.image_name:
        write_png(folder / "images" / name, random.integers(90, 120, (100, 160, 3), np.uint8))
    digests = [bytes.fromhex(sha256_file(folder / "images" / n)) for n in people.image_name]
    points = seen_keypoints(people, views)
    affine = crop_to_heatmap(FRAME, INPUT_HW, HEATMAP_HW)
    heat = encode_keypoints(apply(affine, points.reshape(-1, 3, 2)), HEATMAP_HW)
    heat = (heat * confidence).reshape(NUM_PEOPLE, NUM_VIEWS, 3, *HEATMAP_HW).astype(np.float32)
    heatmaps, scale = quantise_heatmaps(heat, 0.01)
    peaks = np.full_like(scale, confidence)
    outputs = np.concatenate([scale[..., None], peaks[..., None], points], axis=-1)
    image_sha256 = np.stack([np.frombuffer(digest, np.uint8) for digest in digests])
    root = LocalFolder(folder / "store.zarr")
    lease = acquire_lease(root)
    teacher = NewTeacher(
        name="drawn",
        identity={"heatmap_frame": FRAME},
        recipe={},
        provenance={"images": str(folder / "images")} if provenance is None else provenance,
        heatmap_size_hw=HEATMAP_HW,
        threshold=0.01,
    )
    writer = begin_teacher(root, lease.run_id, people, image_sha256, views, teacher)
    if status is None:
        status = np.full((NUM_PEOPLE, NUM_VIEWS), Status.OK, np.uint8)
    if finish:
        images = digest_of_images(image_sha256, people.image_index)
        writer.write_shard(0, heatmaps, outputs.astype(np.float32), status, images)
        writer.finish()
    lease.release()
    return folder / "store.zarr"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("whole"))


def tiles_of(store: Path, row: int) -> list[NDArray[np.uint8]]:
    opened = TeacherStore.open(store)
    image = opened.people.image_name[opened.people.image_index[row]]
    pixels = decode_image(store.parent / "images" / image)
    return person_tiles(opened, row, opened.read([row] * 3, range(3)), pixels)


def test_the_sheet_has_a_row_per_person_and_a_column_per_view_beside_the_truth(
    store: Path, tmp_path: Path
) -> None:
    sizes = {}
    for people, views in ((2, 2), (4, 2), (2, 1), (99, 99)):
        config = ShowConfig(
            store=store, output=tmp_path / "s.png", num_people=people, num_views=views
        )
        assert show(config) == tmp_path / "s.png"
        sizes[people, views] = decode_image(tmp_path / "s.png").shape
    height, width, _ = sizes[2, 2]
    assert 4 * TILE_HW[1] < width < 4.4 * TILE_HW[1]
    assert TILE_HW[1] < width - sizes[2, 1][1] < 1.1 * TILE_HW[1]
    assert 2 * TILE_HW[0] < sizes[4, 2][0] - height < 2.4 * TILE_HW[0]
    assert sizes[99, 99][1] == width, "a store of two augmented views shows two"
    assert sizes[99, 99][0] > sizes[4, 2][0] + 2 * TILE_HW[0], "and of six people six"


def test_the_sheet_is_the_same_each_time_and_another_with_another_seed(
    store: Path, tmp_path: Path
) -> None:
    def sheet(seed: int) -> NDArray[np.uint8]:
        config = ShowConfig(store=store, output=tmp_path / "s.png", num_people=2, seed=seed)
        return decode_image(show(config))

    np.testing.assert_array_equal(sheet(0), sheet(0))
    assert any((sheet(0) != sheet(seed)).any() for seed in (1, 2, 3))


def test_a_teacher_that_says_the_truth_is_drawn_in_the_rings_of_the_truth(store: Path) -> None:
    """In every view, mirrored and turned too, and in the colour of the side that is seen."""
    views = some_views(some_people())
    seen = seen_keypoints(some_people(), views)
    crop_to_tile = resize_affine(INPUT_HW, TILE_HW)
    tiles = tiles_of(store, 2)
    for view, tile in zip((0, 0, 1, 2), tiles, strict=True):
        for point, colour in zip(
            apply(crop_to_tile, seen[2, view]),
            (CENTRE_COLOUR, LEFT_COLOUR, RIGHT_COLOUR),
            strict=True,
        ):
            x, y = np.rint(point).astype(int)
            assert tile[y, x].tolist() == list(colour)


def test_the_truth_of_a_mirrored_view_has_its_sides_swapped(tmp_path: Path) -> None:
    """The teacher is silent here, so rings are all there is."""
    tiles = tiles_of(write_store(tmp_path, confidence=0.0), 2)
    people = some_people()
    views = some_views(people)
    crop_to_tile = resize_affine(INPUT_HW, TILE_HW)
    for view, tile in ((1, tiles[2]), (2, tiles[3])):
        affine = compose(crop_to_tile, views.image_to_crop[2, view])
        ends = (RIGHT_COLOUR, LEFT_COLOUR) if view == 1 else (LEFT_COLOUR, RIGHT_COLOUR)
        places = apply(affine, people.keypoints[2, :, :2])
        for place, colour in zip(places, (CENTRE_COLOUR, *ends), strict=True):
            x, y = np.rint(place).astype(int)
            around = tile[y - 12 : y + 13, x - 12 : x + 13]
            rows, columns = np.nonzero((around == np.array(colour)).all(axis=-1))
            assert len(rows) > 20
            np.testing.assert_allclose([columns.mean() - 12, rows.mean() - 12], 0, atol=1)
    plain = tiles[1]
    assert not (plain == np.array(LEFT_COLOUR)).all(axis=-1).any()


def test_faint_heat_glows_where_the_teacher_saw_it_without_a_dot(tmp_path: Path) -> None:
    people = some_people()
    tile = tiles_of(write_store(tmp_path, confidence=0.19), 2)[1]
    place = apply(
        resize_affine(INPUT_HW, TILE_HW), seen_keypoints(people, some_views(people))[2, 0]
    )[1]
    orange = cv2.blur(tile[..., 0].astype(np.float32) - tile[..., 2], (9, 9))
    y, x = np.unravel_index(orange.argmax(), orange.shape)
    np.testing.assert_allclose([x, y], place, atol=8)
    assert not (tile == np.array(LEFT_COLOUR)).all(axis=-1).any()


def test_an_unlabelled_keypoint_is_drawn_for_the_teacher_alone(store: Path) -> None:
    truth, teacher = tiles_of(store, NUM_PEOPLE - 1)[:2]
    assert not (truth == np.array(CENTRE_COLOUR)).all(axis=-1).any()
    assert (teacher == np.array(CENTRE_COLOUR)).all(axis=-1).any()


def test_people_are_spread_over_the_store_in_order() -> None:
    rows = np.arange(0, 300, 3)
    for seed in range(5):
        picked = spread_rows(rows, 4, seed)
        assert (np.searchsorted([75, 150, 225], picked, side="right") == np.arange(4)).all()
        assert np.isin(picked, rows).all()
    assert spread_rows(rows[:3], 8, 0).tolist() == [0, 3, 6]
    assert len(spread_rows(rows[:0], 8, 0)) == 0


def test_people_with_a_view_that_failed_are_left_out(tmp_path: Path) -> None:
    status = np.full((NUM_PEOPLE, NUM_VIEWS), Status.OK, np.uint8)
    status[1:, 1] = Status.OUTPUT_NOT_FINITE
    store = write_store(tmp_path, status=status)
    sheet = decode_image(show(ShowConfig(store=store, output=tmp_path / "s.png")))
    assert sheet.shape[0] < 2 * TILE_HEIGHT
    status[0] = Status.IMAGE_UNREADABLE
    store = write_store(tmp_path / "nobody", status=status)
    with pytest.raises(IncompleteError, match="holds none of its 6"):
        show(ShowConfig(store=store, output=tmp_path / "t.png"))


def test_an_incomplete_store_is_refused(tmp_path: Path) -> None:
    store = write_store(tmp_path, finish=False)
    with pytest.raises(IncompleteError, match="must be complete"):
        show(ShowConfig(store=store, output=tmp_path / "s.png"))
    assert not (tmp_path / "s.png").exists()


def test_a_missing_image_folder_is_named_with_the_way_out(store: Path, tmp_path: Path) -> None:
    silent = write_store(tmp_path, provenance={})
    with pytest.raises(ConfigError, match=r"does not say where its images were; .* --images"):
        show(ShowConfig(store=silent, output=tmp_path / "s.png"))
    gone = write_store(tmp_path / "gone", provenance={"images": "/no/such/folder"})
    with pytest.raises(ConfigError, match=r"none at /no/such/folder; .* --images"):
        show(ShowConfig(store=gone, output=tmp_path / "s.png"))
    with pytest.raises(ConfigError, match=r"--images must lie in a folder, .* none at .*nowhere"):
        show(ShowConfig(store=store, output=tmp_path / "s.png", images=tmp_path / "nowhere"))
    show(ShowConfig(store=gone, output=tmp_path / "s.png", images=store.parent / "images"))
    assert (tmp_path / "s.png").is_file()


def test_an_image_that_changed_since_is_refused(tmp_path: Path) -> None:
    store = write_store(tmp_path)
    write_png(tmp_path / "images" / "b.png", np.zeros((100, 160, 3), np.uint8))
    with pytest.raises(ImageError, match=r"b\.png' has changed"):
        show(ShowConfig(store=store, output=tmp_path / "s.png"))


def test_an_output_that_is_no_png_file_is_refused(store: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ends in \.png, got people\.jpg"):
        validate_config(ShowConfig, {"store": store, "output": "people.jpg"})
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ConfigError, match=r"folder\.png cannot be written"):
        show(ShowConfig(store=store, output=tmp_path / "folder.png"))
