"""Measure how much of a student's drawn views a stored crop with a margin covers, and its bytes.

    python -m docs.measure_crop_margin ANNOTATIONS IMAGES [PEOPLE]

Prints for each margin, over eight views of the default recipe: the share of the views' pixels,
of those that lie in the photograph, which lie in the stored crop; the share of views of which 99 %
are covered; bytes of a stored crop at the default quality; and the processor time to decode it.
"""

import sys
import time
from pathlib import Path

import numpy as np

from pipeline.coco.image_files import decode_image
from pipeline.coco.people import spread_rows
from pipeline.coco.read_people import read_people
from pipeline.frames.crops import decode_crop, encode_crop, warp_crop
from pipeline.frames.geometry import apply, box_to_crop, compose, crop_to_wide_crop, invert
from pipeline.frames.views import draw_view
from pipeline.settings import PeopleSettings, ViewRecipe
from store_schemas.formats import crop_format, crop_margin_hw

SIZE_HW, QUALITY, NUM_VIEWS = (256, 192), 90, 8
MARGINS = (0.0, 0.25, 0.5, 1.0)
RECIPE = ViewRecipe()
POINTS = np.stack(np.meshgrid(np.arange(3.5, 192, 8), np.arange(3.5, 256, 8)), -1).reshape(-1, 2)
"""(J, 2), places of a view at which it is tested."""


def main(annotations: Path, images: Path, num_people: int) -> None:
    people = read_people(annotations, images, PeopleSettings())
    formats = [
        crop_format(SIZE_HW, QUALITY, "4:2:0", crop_margin_hw(SIZE_HW, margin))
        for margin in MARGINS
    ]
    covered: list[list[float]] = [[] for _ in MARGINS]
    num_bytes, seconds = np.zeros(len(MARGINS)), np.zeros(len(MARGINS))
    rows = spread_rows(people.num_instances, num_people).tolist()
    for row in rows:
        image = decode_image(images / people.image_name[people.image_index[row]])
        box = people.bbox_xywh[row]
        image_to_crop = box_to_crop(box, SIZE_HW, RECIPE.padding)
        for place, crops in enumerate(formats):
            stored_hw = crops.stored_size_hw(SIZE_HW)
            to_stored = compose(crop_to_wide_crop(crops.margin_hw), image_to_crop)
            file = encode_crop(warp_crop(image, to_stored, stored_hw), crops)
            started = time.thread_time()
            decode_crop(file, stored_hw)
            seconds[place] += time.thread_time() - started
            num_bytes[place] += len(file)
        for view in range(1, NUM_VIEWS + 1):
            identity = int(people.instance_id[row])
            drawn = draw_view(
                RECIPE, 0, identity, view, box, people.keypoints[row], people.skeleton, SIZE_HW
            )
            in_image = apply(invert(drawn), POINTS)
            limits = np.array(image.shape[1::-1]) - 0.5
            points = in_image[((in_image > -0.5) & (in_image < limits)).all(axis=1)]
            in_crop = apply(image_to_crop, points)
            for place, crops in enumerate(formats):
                rows_added, columns_added = crops.margin_hw
                added, size = np.array([columns_added, rows_added]), np.array(SIZE_HW[::-1])
                is_stored = (in_crop >= -added - 0.5) & (in_crop <= size + added - 0.5)
                covered[place].append(float(is_stored.all(axis=1).mean()) if len(points) else 1.0)
    for place, margin in enumerate(MARGINS):
        shares = np.array(covered[place])
        height, width = formats[place].stored_size_hw(SIZE_HW)
        print(
            f"margin {margin:g}: {height}x{width}, {shares.mean():.2%} of the pixels, "
            f"{(shares >= 0.99).mean():.1%} of the views, {num_bytes[place] / len(rows):.0f} bytes "
            f"a person, {seconds[place] / len(rows) * 1e3:.2f} ms to decode"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 500)
