"""Laws of reading image files strictly."""

import hashlib
import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from pipeline.coco import image_files
from pipeline.coco.image_files import (
    FileStamp,
    decode_image,
    decode_image_bytes,
    image_size_hw,
    read_image_bytes,
    resolve_image,
    sha256_file,
)
from pipeline.errors import ImageError, PeopleError


def photo(mode: str = "RGB") -> Image.Image:
    """Draw a picture with a different colour at each place, 48 wide and 32 high."""
    rows, columns = np.mgrid[0:32, 0:48]
    pixels = np.stack([rows * 7, columns * 5, (rows + columns) * 3], axis=-1).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)


def as_rgb(image: Image.Image) -> NDArray[np.uint8]:
    return np.array(image.convert("RGB"))


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "1"])
def test_every_mode_of_a_png_decodes_to_rgb(tmp_path: Path, mode: str) -> None:
    photo(mode).save(tmp_path / "a.png")
    image = decode_image(tmp_path / "a.png")
    assert image.shape == (32, 48, 3)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, as_rgb(photo(mode)))


def test_a_cmyk_jpeg_keeps_its_colours(tmp_path: Path) -> None:
    photo("CMYK").save(tmp_path / "a.jpg", quality=100, subsampling=0)
    difference = decode_image(tmp_path / "a.jpg").astype(int) - as_rgb(photo())
    assert np.abs(difference).max() <= 12


def test_a_transparent_palette_decodes_to_its_colours(tmp_path: Path) -> None:
    image = photo("P")
    image.save(tmp_path / "a.png", transparency=bytes(range(256)))
    np.testing.assert_array_equal(decode_image(tmp_path / "a.png"), as_rgb(image))


def test_exif_rotation_changes_neither_size_nor_pixels(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: rotate by 90 degrees
    photo().save(tmp_path / "turned.jpg", exif=exif)
    photo().save(tmp_path / "plain.jpg")
    assert image_size_hw(tmp_path / "turned.jpg") == (32, 48)
    np.testing.assert_array_equal(
        decode_image(tmp_path / "turned.jpg"), decode_image(tmp_path / "plain.jpg")
    )


@pytest.mark.parametrize(
    ("file_format", "options"),
    [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("WEBP", {}), ("BMP", {})],
)
def test_a_file_cut_anywhere_is_refused_or_whole(
    tmp_path: Path, file_format: str, options: dict[str, bool]
) -> None:
    """A file that lacks only what follows the pixels may decode; never are pixels made up."""
    buffer = io.BytesIO()
    photo().save(buffer, file_format, **options)
    content = buffer.getvalue()
    path = tmp_path / "cut"
    path.write_bytes(content)
    whole = decode_image(path)
    num_refused = 0
    for length in range(0, len(content), max(1, len(content) // 100)):
        path.write_bytes(content[:length])
        try:
            np.testing.assert_array_equal(decode_image(path), whole)
        except ImageError:
            num_refused += 1
    assert num_refused > 90


@pytest.mark.parametrize(
    ("file_format", "mode", "options"),
    [
        ("JPEG", "RGB", {"progressive": True}),
        *(("BMP", mode, {}) for mode in ("RGB", "L", "P")),
        ("TIFF", "RGB", {}),
        ("TIFF", "RGB", {"compression": "tiff_lzw"}),
        ("PPM", "RGB", {}),
        ("GIF", "P", {}),
    ],
)
def test_bytes_in_memory_decode_as_a_file_does(
    tmp_path: Path, file_format: str, mode: str, options: dict[str, object]
) -> None:
    """Pillow maps some files into memory and hands others to a library by their descriptor."""
    buffer = io.BytesIO()
    photo(mode).crop((0, 0, 47, 32)).save(buffer, file_format, **options)
    content, path = buffer.getvalue(), tmp_path / "cut"
    num_whole = 0
    for length in [len(content), *range(0, len(content), max(1, len(content) // 60))]:
        path.write_bytes(content[:length])
        outcomes = []
        for source in (path, io.BytesIO(content[:length])):
            try:
                outcomes.append(image_files._read(path, source, image_files._pixels).tobytes())
            except ImageError:
                outcomes.append(b"refused")
        assert outcomes[0] == outcomes[1], length
        num_whole += outcomes[0] != b"refused"
    assert 1 <= num_whole < 10


def test_a_digest_is_that_of_the_bytes_that_were_decoded(tmp_path: Path) -> None:
    photo().save(tmp_path / "a.png")
    file = read_image_bytes(tmp_path / "a.png")
    np.testing.assert_array_equal(decode_image_bytes(file.content, Path("a")), as_rgb(photo()))
    assert file.sha256 == hashlib.sha256((tmp_path / "a.png").read_bytes()).digest()


def test_a_file_bears_the_stamp_of_inode_length_and_time(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"whole")
    stat = (tmp_path / "a").stat()
    assert read_image_bytes(tmp_path / "a").stamp == (stat.st_ino, 5, stat.st_mtime_ns)


def test_a_file_that_changes_while_it_is_read_bears_no_stamp(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(b"whole")
    stamps = iter([FileStamp(1, 5, 7), FileStamp(1, 5, 8)])
    monkeypatch.setattr(image_files, "_stamp", lambda _: next(stamps))
    assert read_image_bytes(tmp_path / "a").stamp is None


def test_a_refusal_of_bytes_names_their_file() -> None:
    with pytest.raises(ImageError, match=r"a\.jpg' cannot be read: cannot identify .*JPEG"):
        decode_image_bytes(b"<html>", Path("a.jpg"))


def test_a_truncated_image_is_refused_by_name(tmp_path: Path) -> None:
    photo().save(tmp_path / "cut.jpg")
    content = (tmp_path / "cut.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(content[:-60])
    with pytest.raises(ImageError, match=r"cut\.jpg' cannot be read: .*truncated"):
        decode_image(tmp_path / "cut.jpg")


def test_a_size_comes_from_the_header_alone(tmp_path: Path) -> None:
    photo().save(tmp_path / "cut.jpg")
    content = (tmp_path / "cut.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(content[:-60])
    assert image_size_hw(tmp_path / "cut.jpg") == (32, 48)


def test_what_is_no_image_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("<html>\nnot found\n</html>")
    for read in (decode_image, image_size_hw):
        with pytest.raises(ImageError, match=r"a\.jpg' cannot be read: cannot identify") as refusal:
            read(tmp_path / "a.jpg")
        assert "\n" not in str(refusal.value)


def test_a_missing_image_is_refused(tmp_path: Path) -> None:
    for read in (decode_image, read_image_bytes, image_size_hw, sha256_file):
        with pytest.raises(ImageError, match=r"a\.jpg' cannot be read: No such file"):
            read(tmp_path / "a.jpg")


def test_sixteen_bits_a_pixel_are_refused_rather_than_clipped(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 4000, np.uint16)).save(tmp_path / "depth.png")
    with pytest.raises(ImageError, match=r"depth\.png' .* more than 8 bits; convert it"):
        decode_image(tmp_path / "depth.png")


def bomb() -> bytes:
    """Write a PNG whose header alone declares 100 megapixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", 10_000, 10_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def test_a_decompression_bomb_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(bomb())
    for read in (decode_image, image_size_hw):
        with pytest.raises(ImageError, match=r"bomb\.png' cannot be read: .*pixels"):
            read(tmp_path / "bomb.png")


@pytest.mark.parametrize("option", ["-Wdefault", "-Wignore"])
def test_a_pillow_warning_is_a_refusal_whatever_python_was_told(
    tmp_path: Path, option: str
) -> None:
    (tmp_path / "bomb.png").write_bytes(bomb())
    program = (
        "import sys, pathlib, pipeline.coco.image_files as files\n"
        "from PIL import Image\n"
        "files._MOST_PIXELS = 10 ** 12\n"
        "try: files.image_size_hw(pathlib.Path(sys.argv[1]))\n"
        "except files.ImageError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, option, "-c", program, str(tmp_path / "bomb.png")],
        cwd=Path(__file__).resolve().parents[2], capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "decompression bomb" in done.stdout
    assert done.stderr == ""


def test_a_digest_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"whole")
    assert sha256_file(tmp_path / "a") == hashlib.sha256(b"whole").hexdigest()


@pytest.mark.parametrize("name", ["a.jpg", "train/a.jpg", "..a.jpg", "a..b/c", "a\\..\\b.jpg"])
def test_a_name_inside_the_folder_resolves_into_it(name: str) -> None:
    assert resolve_image(Path("/images"), name).as_posix() == f"/images/{name}"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("/etc/passwd", "leaves the image folder"),
        ("../a.jpg", "leaves the image folder"),
        ("a/../../b.jpg", "leaves the image folder"),
        ("", "is empty"),
        (".", "is empty"),
        ("a\0b", "no file name can hold"),
        ("\ud800.jpg", "no file name can hold"),
    ],
)
def test_a_name_that_is_no_path_in_the_folder_is_refused(name: str, reason: str) -> None:
    with pytest.raises(PeopleError, match=reason):
        resolve_image(Path("/images"), name)


@given(st.text(alphabet="a./\\", max_size=12))
def test_no_name_leads_out_of_the_folder(name: str) -> None:
    try:
        path = resolve_image(Path("/images"), name)
    except PeopleError:
        return
    assert Path("/images") in path.parents
    assert ".." not in path.parts


def test_the_image_folder_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "images").symlink_to(tmp_path / "disk")
    photo().save(tmp_path / "disk" / "a.png")
    assert image_size_hw(resolve_image(tmp_path / "images", "a.png")) == (32, 48)
