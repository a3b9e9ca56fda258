"""The images of ``tests.support.coco_documents``."""

from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """The folder that holds the document's two images."""
    (tmp_path / "images/b").mkdir(parents=True)
    Image.new("RGB", (64, 48)).save(tmp_path / "images/b/two.png")
    Image.new("RGB", (40, 30)).save(tmp_path / "images/one.png")
    return tmp_path / "images"
