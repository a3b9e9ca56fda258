"""Teacher store -> contact sheet: people, the teacher's predictions of them, and the truth."""

from pathlib import Path

from pipeline.frames.crops import warp_crop
from pipeline.frames.geometry import apply, compose, crop_to_heatmap, invert, resize_affine
from pipeline.pictures.contact_sheet import contact_sheet, label_tile, write_sheet
from pipeline.pictures.poses import (
    SIDES,
    Picture,
    draw_pose,
    keypoint_colours,
    overlay_heatmaps,
    ring_keypoints,
)
from pipeline.pictures.shown_people import image_folder_of, spread_rows, teacher_title
from pipeline.teacher_store.keypoint_reading import StoredKeypoints
from pipeline.teacher_store.reader import StoredViews, TeacherStore
from pipeline.training.images import TrainingImages
from stages.settings.pictures import ShowConfig
from store_schemas.errors import IncompleteError
from store_schemas.heatmap_codec import dequantise_heatmaps

TILE_HEIGHT = 320
MIN_CONFIDENCE = 0.2
"""Keypoints of the teacher below it are not drawn, as they do not count in a pose's score."""
LEGEND = (
    *SIDES,
    (f"dots and limbs: its keypoints of confidence {MIN_CONFIDENCE} and more", None),
)
LEGEND_OF_HEATMAPS = (("glow: the teacher's heatmaps", None),)
LEGEND_OF_VIEWS = (("rings: the truth; a mirrored view exchanges left and right", None),)


def show(config: ShowConfig) -> Path:
    """Draw a contact sheet of a teacher store and return where it lies.

    Raises:
        IncompleteError: the store is not complete, or nobody's views are all there.
        ConfigError: there is no image folder, or the sheet cannot be written.
        ImageError: an image cannot be decoded, or has changed since the store was written.
    """
    store = TeacherStore.open(config.store, config.teacher_name)
    people = store.people
    images = TrainingImages(people, image_folder_of(store, config.images), store.image_sha256)
    rows = spread_rows(store.present_instances(), config.num_people, config.seed)
    if not len(rows):
        raise IncompleteError(
            f"{store.path} must hold a person whose views are all there, but holds none of its "
            f"{people.num_instances}; repair their images and write the store again"
        )
    num_shown = min(config.num_views, store.num_views - 1)
    tiles, captions = [], []
    for row in rows.tolist():
        read = store.read if store.has_heatmaps else store.read_keypoints
        shown = read([row] * (num_shown + 1), range(num_shown + 1))
        image_index = int(people.image_index[row])
        tiles.append(person_tiles(store, row, shown, images.read(image_index)))
        captions.append(f"{people.image_name[image_index]}, annotation {people.instance_id[row]}")
    titles = ["truth", "teacher, view 0 (plain)"]
    titles += [f"teacher, view {view}" for view in range(1, num_shown + 1)]
    heading = (
        f"{len(rows)} of {people.num_instances:,} people of {Path(store.path).name}, and what the "
        f"teacher predicted. Teacher: {teacher_title(store)}"
    )
    legend = LEGEND + (LEGEND_OF_HEATMAPS if store.has_heatmaps else ())
    legend += LEGEND_OF_VIEWS if num_shown else ()
    write_sheet(config.output, contact_sheet(tiles, titles, captions, legend, heading))
    return config.output


def person_tiles(
    store: TeacherStore, row: int, shown: StoredKeypoints, image: Picture
) -> list[Picture]:
    """Draw the tiles of one person: the truth, then each view.

    shown: view 0 and the augmented views that are shown, B in all.
    image: (H, W, 3) uint8, RGB, image frame.
    """
    people, skeleton = store.people, store.people.skeleton
    height, width = store.input_size_hw
    tile_size_hw = (TILE_HEIGHT, round(TILE_HEIGHT * width / height))
    crop_to_tile = resize_affine(store.input_size_hw, tile_size_hw)
    frame = store.heatmap_frame
    tile_to_heatmap = compose(
        crop_to_heatmap(frame, store.input_size_hw, store.heatmap_size_hw), invert(crop_to_tile)
    )
    colours = keypoint_colours(skeleton)
    heat = None
    if isinstance(shown, StoredViews):
        heat = dequantise_heatmaps(shown.heatmaps, shown.scale)
    tiles: list[Picture] = []
    for view, image_to_crop in enumerate(shown.image_to_crop):
        image_to_tile = compose(crop_to_tile, image_to_crop)
        tile = warp_crop(image, image_to_tile, tile_size_hw)
        swap = list(skeleton.flip_indices) if shown.is_mirrored[view] else slice(None)
        truth = apply(image_to_tile, people.keypoints[row, swap, :2])
        is_labelled = people.is_labelled[row, swap]
        if view == 0:
            tiles.append(draw_pose(tile, truth, is_labelled, skeleton))
        seen = apply(crop_to_tile, shown.keypoints[view])
        is_sure = shown.confidence[view] >= MIN_CONFIDENCE
        if heat is not None:
            tile = overlay_heatmaps(tile, heat[view], tile_to_heatmap, colours)
        if view > 0:
            tile = ring_keypoints(tile, truth, is_labelled, skeleton)
        tile = draw_pose(tile, seen, is_sure, skeleton)
        kind = "mirrored, " if shown.is_mirrored[view] else ""
        tiles.append(label_tile(tile, f"{kind}mean confidence {shown.confidence[view].mean():.2f}"))
    return tiles
