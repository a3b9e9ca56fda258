"""Fixtures that several test folders use."""

from pathlib import Path

import pytest
from hypothesis import settings

# Fixed seeds, and no deadline: a busy machine is no error.
settings.register_profile("distil", deadline=None, derandomize=True)
settings.load_profile("distil")

SHARED = Path(__file__).resolve().parents[1].parent / "shared"


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """The folder of real people and a real teacher beside the project."""
    if not SHARED.is_dir():
        pytest.skip("the folder `shared` with real people and a teacher is not beside the project")
    return SHARED
