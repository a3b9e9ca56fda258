"""What a user names is found, by kind, and what is neither is said."""

import importlib.util
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.media.inputs import NamedFile, find_inputs, require_video_support


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.JPG", "a.png", "below/c.webp", "clip.MP4", "notes.txt"):
        path = tmp_path / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "files"


def test_a_folder_gives_its_files_by_name_and_says_what_it_leaves_out(folder: Path) -> None:
    found = find_inputs([str(folder)])
    assert [file.name for file in found.photographs] == ["a.png", "b.JPG", "below/c.webp"]
    assert found.videos == (NamedFile(folder / "clip.MP4", "clip.MP4"),)
    assert found.notes == (f"left out 1 file of {folder}, neither photograph nor video by suffix",)
    assert found.has_motion


def test_a_file_that_is_given_is_taken_whatever_its_suffix(folder: Path) -> None:
    found = find_inputs([str(folder / "notes.txt")])
    assert found.photographs == (NamedFile(folder / "notes.txt", "notes.txt"),)
    assert not found.has_motion


def test_a_number_is_a_webcam_unless_a_file_has_that_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert find_inputs(["1"]).webcams == (1,)
    (folder / "1").touch()
    assert find_inputs(["1"]).photographs == (NamedFile(Path("1"), "1"),)


def test_all_names_that_are_nothing_are_named_at_once(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"^x\.jpg, y\.jpg: no such file; expected photographs"):
        find_inputs(["x.jpg", str(folder), "y.jpg"])


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is nothing to predict"):
        find_inputs([str(tmp_path)])


def test_videos_need_their_library_and_photographs_do_not(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    require_video_support(find_inputs([str(folder / "a.png")]))
    with pytest.raises(ConfigError, match=r"clip\.MP4 needs PyAV .* install the extra video"):
        require_video_support(find_inputs([str(folder)]))
    with pytest.raises(ConfigError, match="webcam 3 needs PyAV"):
        require_video_support(find_inputs(["3"]))
