"""Dotted people, drawn once for all tests that leave them as they are."""

import pytest

from tests.support.dotted_people import Dotted, draw_dotted


@pytest.fixture(scope="session")
def dotted(tmp_path_factory: pytest.TempPathFactory) -> Dotted:
    """24 people on 12 images: a box with a coloured dot at each of four keypoints."""
    return draw_dotted(tmp_path_factory.mktemp("images"))
