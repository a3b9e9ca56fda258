"""A contact sheet keeps every tile's pixels and leaves room for its texts."""

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.pictures.contact_sheet import blocks_for_a_screen, contact_sheet, label_tile

RED, BLUE = (250, 0, 0), (0, 0, 250)


def tile(value: int, size_hw: tuple[int, int] = (80, 60)) -> NDArray[np.uint8]:
    # green: no grey of an antialiased letter can be taken for it
    return np.broadcast_to(np.array([0, value, 0], np.uint8), (*size_hw, 3))


def places(sheet: NDArray[np.uint8], value: int) -> tuple[int, int, int, int]:
    """Return the first row, last row, first column and last column of a tile."""
    rows, columns = np.nonzero((sheet == [0, value, 0]).all(axis=-1))
    return rows.min(), rows.max(), columns.min(), columns.max()


def test_tiles_keep_their_size_and_stand_in_a_grid_without_touching() -> None:
    values = np.array([[101, 102, 103], [104, 105, 106]])
    sheet = contact_sheet([[tile(v) for v in row] for row in values], "abc", ["one", "two"])
    found = np.array([[places(sheet, v) for v in row] for row in values])
    assert sheet.dtype == np.uint8
    assert (found[..., 1] - found[..., 0] + 1 == 80).all()
    assert (found[..., 3] - found[..., 2] + 1 == 60).all()
    assert (found[:, 1:, 2] > found[:, :-1, 3] + 1).all()
    assert (found[1, :, 0] > found[0, :, 1] + 1).all()
    assert (found[:, :, :2] == found[:, :1, :2]).all()
    assert (found[:, :, 2:] == found[:1, :, 2:]).all()


def test_titles_captions_and_legend_are_written_beside_the_tiles() -> None:
    rows = [[tile(101), tile(102)]]
    bare = contact_sheet(rows, ["", ""], [""])
    assert set(np.unique(bare)) == {0, 101, 102, 255}
    titled = contact_sheet(rows, ["title", "title"], [""])
    assert (titled[: places(titled, 101)[0]] < 100).any()
    assert (bare[: places(bare, 101)[0]] == 255).all()
    captioned = contact_sheet(rows, ["", ""], ["caption"])
    assert (captioned[: places(captioned, 101)[0]] < 100).any()
    explained = contact_sheet(rows, ["", ""], [""], [("red", RED), ("more", None), ("blue", BLUE)])
    below = explained[places(explained, 101)[1] + 1 :]
    assert (below == RED).all(axis=-1).sum() == (below == BLUE).all(axis=-1).sum() > 20
    assert len(explained) > len(bare)


def test_long_texts_are_wrapped_or_cut_and_never_widen_the_sheet() -> None:
    rows = [[tile(101), tile(102)]]
    long = "a-very-long-name/" * 10
    sheet = contact_sheet(rows, ["several words of a title", long], [long], [(long, RED)])
    assert sheet.shape[1] == contact_sheet(rows, "ab", ["c"]).shape[1]
    assert places(sheet, 101)[0] > places(contact_sheet(rows, "ab", ["c"]), 101)[0]
    margin = places(sheet, 101)[2]
    caption = sheet[places(sheet, 101)[0] - 18 : places(sheet, 101)[0], -margin + 2 :]
    assert (caption == 255).all(), "a cut caption ends before the margin"


def test_a_label_covers_the_bottom_of_a_tile_alone() -> None:
    labelled = label_tile(tile(120, (320, 240)), "mirrored")
    rows = np.nonzero((labelled != [0, 120, 0]).any(axis=(1, 2)))[0]
    assert labelled.shape == (320, 240, 3)
    assert rows.min() > 0.9 * 320
    assert rows.max() == 319
    assert labelled[rows].max() > 200


def test_tiles_of_several_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"one size, got \[\(80, 60, 3\), \(80, 61, 3\)\]"):
        contact_sheet([[tile(1), tile(1, (80, 61))]], "ab", ["c"])
    with pytest.raises(ValueError, match=r"one size, got \[\]"):
        contact_sheet([], [], [])


def test_texts_that_do_not_match_the_grid_are_refused() -> None:
    with pytest.raises(ValueError, match="2 titles and 1 captions for 1 rows of"):
        contact_sheet([[tile(1)]], "ab", ["c"])
    with pytest.raises(ValueError, match="1 titles and 2 captions for 1 rows of"):
        contact_sheet([[tile(1)]], "a", ["c", "d"])


def test_blocks_stand_side_by_side_and_rows_go_down_one_after_another() -> None:
    values = np.array([[101, 102], [103, 104], [105, 106], [107, 108], [109, 110]])
    rows, captions = [[tile(v) for v in row] for row in values], ["caption"] * 5
    sheet = contact_sheet(rows, "ab", captions, num_blocks=2)
    found = np.array([[places(sheet, v) for v in row] for row in values])
    single = contact_sheet(rows, "ab", captions)
    assert (found[:3, :, 2:] == found[:1, :, 2:]).all(), "the first block holds three rows"
    assert (found[3:, :, :2] == found[:2, :, :2]).all(), "the second begins at the top"
    gap_between_tiles = found[0, 1, 2] - found[0, 0, 3]
    assert found[3, 0, 2] - found[0, 1, 3] > 2 * gap_between_tiles
    assert len(sheet) < 0.7 * len(single)
    left, right = found[0, 0, 2], sheet.shape[1] - 1 - found[3, 1, 3]
    assert left == right
    below_the_last = sheet[found[4, 0, 1] + 1 :, found[3, 0, 2] :]
    assert (below_the_last == 255).all()
    three = contact_sheet(rows[:4], "ab", captions[:4], num_blocks=3)
    assert three.shape[1] == sheet.shape[1], "four rows in blocks of two fill two blocks"


@pytest.mark.parametrize(
    ("rows", "columns", "expected"), [(20, 3, 4), (8, 2, 3), (2, 5, 1), (1, 1, 1), (3, 1, 3)]
)
def test_a_sheet_for_a_screen_is_no_higher_than_wide(
    rows: int, columns: int, expected: int
) -> None:
    found = blocks_for_a_screen(rows, columns, (320, 240))
    assert found == expected
    if found > 1:
        assert (found - 1) * columns * 240 < -(-rows // (found - 1)) * 320
