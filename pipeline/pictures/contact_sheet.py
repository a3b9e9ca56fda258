"""Lay pictures out in a grid that explains itself: titles, captions and a legend."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipeline.errors import ConfigError
from pipeline.pictures.poses import OUTLINE_COLOUR, Colour, Picture, write_png

Phrase = tuple[str, Colour | None]

BACKGROUND_COLOUR: Colour = (255, 255, 255)
TEXT_COLOUR: Colour = (30, 30, 30)
_MARGINS_BETWEEN_BLOCKS = 4


def label_tile(tile: Picture, text: str) -> Picture:
    """Write a short text on a dark strip along the bottom of a tile."""
    height, width = tile.shape[:2]
    size = max(9, height // 22)
    strip = round(1.5 * size)
    canvas = Image.fromarray(np.ascontiguousarray(tile))
    pen = ImageDraw.Draw(canvas, "RGBA")
    pen.rectangle((0, height - strip, width, height), fill=(*OUTLINE_COLOUR, 200))
    place = (size // 2, height - strip // 2)
    shown = _shorten(text, _font(size), width - size)
    pen.text(place, shown, BACKGROUND_COLOUR, font=_font(size), anchor="lm")
    return np.array(canvas, np.uint8)


def contact_sheet(
    rows: Sequence[Sequence[Picture]],
    column_titles: Sequence[str],
    row_captions: Sequence[str],
    legend: Sequence[Phrase] = (),
    heading: str = "",
    *,
    num_blocks: int = 1,
) -> Picture:
    """Lay tiles of one size out in a grid with titles, a caption above each row, and a legend.

    Texts that are longer than their place is wide are broken into lines.

    rows: tiles (H, W, 3) uint8, RGB; each row has as many as there are titles.
    legend: phrases for the bottom, each after a square of its colour; a colour of None: no square.
    heading: what the whole sheet shows; it stands at the top.
    num_blocks: number of blocks of rows side by side; the rows go down the first block, then the
        next.

    Raises:
        ValueError: no tile, tiles of several sizes, or texts that do not match the grid.
    """
    tile_height, tile_width = _tile_size(rows, column_titles, row_captions)
    text_size = max(11, tile_width // 15)
    margin, line = text_size // 2 + 2, round(1.7 * text_size)
    font, heading_font = _font(text_size), _font(round(1.2 * text_size))
    per_block = -(-len(rows) // num_blocks)
    starts = range(0, len(rows), per_block)
    block_width = len(column_titles) * (tile_width + margin) - margin
    stride = block_width + _MARGINS_BETWEEN_BLOCKS * margin
    text_width = stride * (len(starts) - 1) + block_width
    heading_lines = _wrap(heading, heading_font, text_width) if heading else []
    title_lines = [_wrap(title, font, tile_width) for title in column_titles]
    caption_lines = [_wrap(caption, font, block_width) for caption in row_captions]
    legend_lines = _legend_lines(legend, font, text_width)
    num_lines = len(heading_lines) + max(map(len, title_lines)) + len(legend_lines)
    num_lines += max(sum(map(len, caption_lines[start : start + per_block])) for start in starts)
    height = 2 * margin + line * num_lines + (margin if heading_lines else 0)
    height += per_block * (tile_height + margin)
    canvas = Image.new("RGB", (text_width + 2 * margin, height), BACKGROUND_COLOUR)
    pen = ImageDraw.Draw(canvas)
    y = margin
    for text in heading_lines:
        pen.text((margin, y + line / 2), text, TEXT_COLOUR, font=heading_font, anchor="lm")
        y += line
    top = y + (margin if heading_lines else 0)
    for place, start in enumerate(starts):
        left, y = margin + place * stride, top
        for column, lines in enumerate(title_lines):
            centre = left + column * (tile_width + margin) + tile_width / 2
            for index, text in enumerate(lines):
                middle = (centre, y + line * index + line / 2)
                pen.text(middle, text, TEXT_COLOUR, font=font, anchor="mm")
        y += line * max(map(len, title_lines))
        for row in range(start, min(start + per_block, len(rows))):
            for text in caption_lines[row]:
                pen.text((left, y + line / 2), text, TEXT_COLOUR, font=font, anchor="lm")
                y += line
            for column, tile in enumerate(rows[row]):
                x = left + column * (tile_width + margin)
                canvas.paste(Image.fromarray(np.ascontiguousarray(tile)), (x, y))
            y += tile_height + margin
    y = height - margin - line * len(legend_lines)
    for phrases in legend_lines:
        _write_phrases(pen, phrases, (margin, y + line / 2), font)
        y += line
    return np.array(canvas, np.uint8)


def blocks_for_a_screen(num_rows: int, num_columns: int, tile_size_hw: tuple[int, int]) -> int:
    """Return the least number of blocks whose sheet is about as wide as it is high, or wider."""
    height, width = tile_size_hw
    blocks = range(1, num_rows + 1)
    wide = (n for n in blocks if n * num_columns * width >= -(-num_rows // n) * height)
    return next(wide, num_rows)


def write_sheet(path: Path, sheet: Picture) -> None:
    """Write a sheet as a PNG file.

    Raises:
        ConfigError: it cannot be written there.
    """
    try:
        write_png(path, sheet)
    except OSError as error:
        raise ConfigError(
            f"output {path} cannot be written ({error.strerror}); choose another path"
        ) from error


def _tile_size(
    rows: Sequence[Sequence[Picture]], column_titles: Sequence[str], row_captions: Sequence[str]
) -> tuple[int, int]:
    shapes = {tile.shape for tiles in rows for tile in tiles}
    if len(shapes) != 1:
        raise ValueError(f"tiles must have one size, got {sorted(shapes)}; resize them first")
    lengths = {len(tiles) for tiles in rows}
    if lengths != {len(column_titles)} or len(rows) != len(row_captions):
        raise ValueError(
            f"a sheet needs a title per column and a caption per row: {len(column_titles)} titles "
            f"and {len(row_captions)} captions for {len(rows)} rows of {sorted(lengths)} tiles"
        )
    height, width, _ = shapes.pop()
    return height, width


def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size=size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # the bitmap font is for builds without it
    return font


def _shorten(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: float) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return [_shorten(line, font, width) for line in lines]


def _legend_lines(
    legend: Sequence[Phrase], font: ImageFont.FreeTypeFont, width: float
) -> list[list[Phrase]]:
    lines: list[list[Phrase]] = []
    used = np.inf
    for text, colour in legend:
        square = font.size * (1 if colour is None else 2.2)
        length = font.getlength(text) + square
        if used + length <= width:
            lines[-1].append((text, colour))
            used += length
            continue
        first, *more = _wrap(text, font, width - square)
        lines.append([(first, colour)])
        lines += [[(part, None)] for part in more]
        used = np.inf if more else length
    return lines


def _write_phrases(
    pen: ImageDraw.ImageDraw,
    phrases: Sequence[Phrase],
    place: tuple[float, float],
    font: ImageFont.FreeTypeFont,
) -> None:
    x, y = place
    side = font.size * 0.8
    for text, colour in phrases:
        if colour is not None:
            pen.rectangle((x, y - side / 2, x + side, y + side / 2), fill=colour)
            x += 1.5 * side
        pen.text((x, y), text, TEXT_COLOUR, font=font, anchor="lm")
        x += font.getlength(text) + font.size
