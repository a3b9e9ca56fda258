"""Laws of asking a teacher: preprocessing, batches, activation, flips, frames and failures."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.errors import TeacherError
from pipeline.frames.geometry import HEATMAP_FRAMES, apply, crop_to_heatmap
from pipeline.frames.heatmaps import encode_keypoints
from pipeline.settings import HeatmapFrame, TeacherSettings
from pipeline.teachers.network import HeatmapNetwork, Prediction
from pipeline.teachers.opening import open_teacher, require_keypoints
from pipeline.teachers.teacher import Teacher

SIZE_HW = (64, 48)
CELLS_HW = (16, 12)
FLIP = (1, 0, 2)


class FormulaNetwork:
    """A function of the normalised crops, as a heatmap network; it notes its batch sizes."""

    kind = "formula"
    architecture = "formula"
    sha256 = "0" * 64
    input_size_hw = SIZE_HW
    heatmap_size_hw = CELLS_HW
    num_keypoints = 3
    keypoint_names: tuple[str, ...] | None = None
    num_threads: int | None = None
    token_shape: tuple[int, tuple[int, int]] | None = None
    heatmap_frame: HeatmapFrame = "half-pixel"

    def __init__(self, fixed_batch_size: int | None = None) -> None:
        self.fixed_batch_size = fixed_batch_size
        self.batch_sizes: list[int] = []

    def forward(self, images: NDArray[np.float32], with_tokens: bool = False) -> Prediction:
        """Means over 4 x 4 pixels: red as keypoint 0 (left), its mirror's green as 1, blue as 2."""
        self.batch_sizes.append(len(images))
        cells = images.reshape(len(images), 3, 16, 4, 12, 4).mean(axis=(3, 5))
        return Prediction(cells.astype(np.float32))

    def execution(self) -> dict[str, Any]:
        return {"provider": "formula"}


class FixedMaps(FormulaNetwork):
    """Gives the same maps whatever it sees."""

    def __init__(self, maps: NDArray[np.float32], frame: HeatmapFrame = "half-pixel") -> None:
        super().__init__()
        self._maps, self.heatmap_frame = maps, frame

    def forward(self, images: NDArray[np.float32], with_tokens: bool = False) -> Prediction:
        return Prediction(np.repeat(self._maps[None], len(images), axis=0))


class MirrorEquivariant(FormulaNetwork):
    """Keypoints 0 and 1 swap under a mirror: one looks for rising red, one for falling red."""

    def forward(self, images: NDArray[np.float32], with_tokens: bool = False) -> Prediction:
        rising = np.roll(images, 2, axis=3) - np.roll(images, -2, axis=3)
        cells = np.stack([rising[:, 0], -rising[:, 0], images[:, 1]], axis=1)
        return Prediction(
            cells.reshape(len(images), 3, 16, 4, 12, 4).mean(axis=(3, 5)).astype(np.float32)
        )


@pytest.fixture(scope="module")
def crops() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (5, *SIZE_HW, 3), np.uint8)


def teacher_of(network: HeatmapNetwork, **settings: Any) -> Teacher:
    return Teacher(network, TeacherSettings(**settings))


@pytest.mark.parametrize(
    ("threads", "cores", "looks"),
    [(1, 1, 1), (1, 4, 4), (3, 4, 1), (2, 5, 2), (9, 4, 1), (1, 64, 8), (None, 64, 2)],
)
def test_a_network_on_cores_looks_at_a_batch_for_each_and_one_on_a_gpu_at_two(
    threads: int | None, cores: int, looks: int
) -> None:
    network = FormulaNetwork()
    network.num_threads = threads
    assert teacher_of(network).batches_at_a_time(cores) == looks


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"mean": (0.1, 0.2, 0.3), "std": (0.5, 0.25, 2.0)},
        {"scale": 1.0, "mean": (100.0, 110.0, 120.0), "std": (1.0, 2.0, 3.0)},
        {"channel_order": "bgr", "mean": (0.1, 0.2, 0.3), "std": (0.5, 0.25, 2.0)},
    ],
)
def test_preprocessing_is_pixel_times_scale_minus_mean_over_std(
    crops: NDArray[np.uint8], settings: dict[str, Any]
) -> None:
    """Mean and std belong to the channels in the order in which the network takes them."""
    teacher = teacher_of(FormulaNetwork(), **settings)
    asked = teacher.settings
    pixels = crops[..., ::-1] if asked.channel_order == "bgr" else crops
    expected = (pixels.astype(np.float64) * asked.scale - asked.mean) / asked.std
    found = teacher.preprocess(crops)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected.transpose(0, 3, 1, 2), rtol=1e-5, atol=1e-5)


def test_every_pass_has_one_batch_size_and_padding_never_shows(crops: NDArray[np.uint8]) -> None:
    network = FormulaNetwork()
    batched = teacher_of(network, batch_size=2).predict_heatmaps(crops)
    assert network.batch_sizes == [2, 2, 2]
    alone = np.concatenate(
        [teacher_of(FormulaNetwork()).predict_heatmaps(crop[None]) for crop in crops]
    )
    np.testing.assert_array_equal(batched, alone)


def test_a_fixed_batch_wins_over_the_batch_size(crops: NDArray[np.uint8]) -> None:
    network = FormulaNetwork(fixed_batch_size=3)
    teacher = teacher_of(network, batch_size=32)
    assert teacher.predict_heatmaps(crops).shape == (5, 3, *CELLS_HW)
    assert network.batch_sizes == [3, 3]
    assert teacher.execution_recipe()["batch_size"] == 3


def test_sigmoid_then_gain(crops: NDArray[np.uint8]) -> None:
    logits = teacher_of(FormulaNetwork()).predict_heatmaps(crops).astype(np.float64)
    found = teacher_of(FormulaNetwork(), heatmap_activation="sigmoid", heatmap_gain=1.5)
    np.testing.assert_allclose(
        found.predict_heatmaps(crops), 1.5 / (1 + np.exp(-logits)), rtol=1e-5, atol=1e-6
    )


def test_a_sigmoid_takes_logits_of_any_size(crops: NDArray[np.uint8]) -> None:
    maps = np.zeros((3, *CELLS_HW), np.float32)
    maps[0], maps[1] = -1e4, 1e4
    heat = teacher_of(FixedMaps(maps), heatmap_activation="sigmoid").predict_heatmaps(crops)
    np.testing.assert_allclose(heat[:, :, 0, 0], np.tile([0, 1, 0.5], (5, 1)), atol=1e-30)


def test_the_flip_test_leaves_a_mirror_equivariant_network_as_it_is(
    crops: NDArray[np.uint8],
) -> None:
    """Half-pixel frame, no shift, left and right swapped back."""
    network = MirrorEquivariant()
    # Away from the crop's edge, where the network's roll wraps around.
    inner = (slice(None), slice(None), slice(None), slice(1, -1))
    plain = teacher_of(network).predict_and_decode(crops, FLIP)
    flipped = teacher_of(network, flip_test=True).predict_and_decode(crops, FLIP)
    np.testing.assert_allclose(flipped.heatmaps[inner], plain.heatmaps[inner], atol=1e-5)
    unswapped = teacher_of(network, flip_test=True).predict_and_decode(crops, (0, 1, 2))
    assert np.abs(unswapped.heatmaps[inner] - plain.heatmaps[inner]).max() > 0.1


def test_the_flip_test_averages_with_the_mirrored_twin(crops: NDArray[np.uint8]) -> None:
    """Shift 1 of the frame msra moves the twin right, and its first column stays."""
    network = FormulaNetwork()
    twins = teacher_of(network).predict_heatmaps(crops[:, :, ::-1])[:, list(FLIP), :, ::-1]
    moved = np.concatenate([twins[..., :1], twins[..., :-1]], axis=-1)
    expected = (teacher_of(network).predict_heatmaps(crops) + moved) / 2
    teacher = teacher_of(network, flip_test=True, heatmap_frame="msra")
    np.testing.assert_allclose(
        teacher.predict_and_decode(crops, FLIP).heatmaps, expected, atol=1e-6
    )


@pytest.mark.parametrize(
    ("frame", "given", "shift"),
    [("msra", None, 1), ("half-pixel", None, 0), ("udp", None, 0), ("msra", 0, 0), ("udp", 2, 2)],
)
def test_the_flip_shift_follows_from_the_frame_unless_it_is_given(
    frame: HeatmapFrame, given: int | None, shift: int
) -> None:
    teacher = teacher_of(FormulaNetwork(), heatmap_frame=frame, flip_shift=given)
    assert teacher.settings.flip_shift == shift


@pytest.mark.parametrize("frame", HEATMAP_FRAMES)
@pytest.mark.parametrize("is_option", [True, False])
def test_points_come_back_to_the_crop_through_the_frame(
    crops: NDArray[np.uint8], frame: HeatmapFrame, is_option: bool
) -> None:
    """The frame is the network's own, or else the option's."""
    points = np.array([[20.3, 31.8], [27.1, 24.2], [22.0, 40.5]])
    maps = encode_keypoints(apply(crop_to_heatmap(frame, SIZE_HW, CELLS_HW), points), CELLS_HW)
    teacher = (
        teacher_of(FixedMaps(maps), heatmap_frame=frame)
        if is_option
        else teacher_of(FixedMaps(maps, frame))
    )
    output = teacher.predict_and_decode(crops, FLIP)
    np.testing.assert_allclose(output.keypoints, np.tile(points, (5, 1, 1)), atol=0.2)
    np.testing.assert_array_equal(output.confidences, np.tile(maps.max(axis=(1, 2)), (5, 1)))


def test_the_expected_mirror_gap_is_that_of_the_frame() -> None:
    gaps = {
        frame: teacher_of(FormulaNetwork(), heatmap_frame=frame).expected_mirror_gap
        for frame in HEATMAP_FRAMES
    }
    assert gaps == pytest.approx({"msra": 0.75, "half-pixel": 0.0, "udp": 0.0})


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_a_map_that_is_not_finite_has_no_point_and_no_peak(
    crops: NDArray[np.uint8], poison: float
) -> None:
    maps = encode_keypoints(np.full((3, 2), 6.0), CELLS_HW)
    maps[1, 3, 4] = poison
    output = teacher_of(FixedMaps(maps)).predict_and_decode(crops, FLIP)
    assert np.isnan(output.keypoints[:, 1]).all()
    assert np.isnan(output.confidences[:, 1]).all()
    assert np.isfinite(output.keypoints[:, [0, 2]]).all()
    assert np.isfinite(output.confidences[:, [0, 2]]).all()


@pytest.mark.parametrize(
    "change",
    [
        {"mean": (0.0, 0.0, 0.0)},
        {"std": (1.0, 1.0, 1.0)},
        {"scale": 1.0},
        {"channel_order": "bgr"},
        {"heatmap_activation": "sigmoid"},
        {"heatmap_gain": 2.0},
        {"heatmap_frame": "udp"},
        {"flip_test": True},
        {"flip_shift": 3},
        {"decoding": "quarter"},
    ],
)
def test_the_identity_changes_with_every_setting_that_changes_the_answer(
    change: dict[str, Any],
) -> None:
    before = teacher_of(FormulaNetwork()).identity()
    after = teacher_of(FormulaNetwork(), **change).identity()
    assert {name for name in before if before[name] != after[name]} == change.keys()


@pytest.mark.parametrize("change", [{"batch_size": 7}, {"num_threads": 3}])
def test_what_moves_the_last_bits_is_the_recipe_not_the_identity(change: dict[str, Any]) -> None:
    before, after = teacher_of(FormulaNetwork()), teacher_of(FormulaNetwork(), **change)
    assert before.identity() == after.identity()
    assert before.execution_recipe() != after.execution_recipe()


def test_the_recipe_holds_what_the_network_says_of_its_execution() -> None:
    recipe = teacher_of(FormulaNetwork()).execution_recipe()
    assert recipe["provider"] == "formula"
    assert "provider" not in teacher_of(FormulaNetwork()).identity()


def test_every_setting_is_in_the_identity_or_in_the_recipe() -> None:
    order = tuple(range(FormulaNetwork().num_keypoints))
    teacher = teacher_of(FormulaNetwork(), keypoint_order=order)  # in it only where it is given
    known = teacher.identity().keys() | teacher.execution_recipe().keys()
    known |= {"device"}  # which a network's own execution resolves
    assert TeacherSettings.model_fields.keys() - known == {"precision"}  # named unless float32
    in_bfloat16 = teacher_of(FormulaNetwork(), precision="bfloat16").identity()
    assert in_bfloat16["precision"] == "bfloat16"


def test_the_identity_names_the_network() -> None:
    network = FormulaNetwork()
    network.sha256 = "1" * 64
    network.architecture = "other"
    identity = teacher_of(network).identity()
    assert (identity["sha256"], identity["architecture"]) == ("1" * 64, "other")


def test_a_teacher_with_another_number_of_keypoints_is_refused() -> None:
    with pytest.raises(
        TeacherError,
        match=r"predicts 3 heatmaps, but the category has 2 keypoints \(nose, tail, ...\)",
    ):
        require_keypoints(teacher_of(FormulaNetwork()), ("nose", "tail"))


def test_a_missing_teacher_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match=r"no\.onnx does not exist; expected a \.onnx file"):
        open_teacher(tmp_path / "no.onnx", TeacherSettings())


def test_a_teacher_of_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "teacher.h5").write_bytes(b"?")
    with pytest.raises(TeacherError, match=r"teacher\.h5 is of no known kind; expected a \.onnx"):
        open_teacher(tmp_path / "teacher.h5", TeacherSettings())
