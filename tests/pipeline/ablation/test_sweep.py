"""The file of a sweep: what it may say, the arms that it describes, and what is refused."""

from pathlib import Path

import pytest

from pipeline.ablation.sweep import Sweep, arms_of, as_toml, chosen_arms, read_sweep
from pipeline.errors import ConfigError

FILE = """# Does heat help?
baseline = "labels"
seeds = [3, 5]
person_views = 1000
[settings]
optimisation.batch_size = 16
[arms.labels]
distillation = false
[arms."+ heat"]
loss.confidence = 0.5
person_views = 70
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "sweep.toml"
    path.write_text(text)
    return path


def test_a_sweep_is_read_with_its_question_from_the_first_line(tmp_path: Path) -> None:
    sweep = read_sweep(write(tmp_path, FILE))
    assert (sweep.question, sweep.seeds) == ("Does heat help?", (3, 5))
    assert sweep.settings == {"optimisation.batch_size": 16}
    labels, heat = arms_of(sweep)
    assert (labels.name, labels.baseline, labels.person_views) == ("labels", "labels", 1000)
    assert (heat.name, heat.baseline, heat.person_views) == ("+ heat", "labels", 70)
    assert heat.settings == {"loss.confidence": 0.5}
    assert heat.run_name(5) == "heat-seed5"


def test_the_question_may_be_a_field(tmp_path: Path) -> None:
    text = FILE.replace("# Does heat help?", 'question = "Why?"')
    assert read_sweep(write(tmp_path, text)).question == "Why?"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (FILE.partition("\n")[2], "must be the question of the sweep"),
        (FILE + "[grids]\na = [1]\n", "grids is no field of a sweep"),
        (FILE.replace("[3, 5]", "[-1]"), "seeds.0: Input should be greater than or equal to 0"),
        (FILE.replace('= "labels"', "= labels"), "is not valid TOML"),
    ],
)
def test_a_faulty_file_is_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        read_sweep(write(tmp_path, text))


def test_a_grid_makes_an_arm_of_every_combination() -> None:
    grid = {"loss.moments": (0.0, 1.0), "data.label_share": (0.1,)}
    sweep = Sweep(question="?", baseline="moments=0.0 label_share=0.1", grid=grid)
    assert [arm.name for arm in arms_of(sweep)] == [
        "moments=0.0 label_share=0.1",
        "moments=1.0 label_share=0.1",
    ]
    assert arms_of(sweep)[1].settings == {"loss.moments": 1.0, "data.label_share": 0.1}


def test_with_a_grid_each_arm_is_compared_with_the_baseline_of_its_own_point() -> None:
    sweep = Sweep(
        question="?",
        baseline="plain",
        grid={"data.label_share": (0.1, 1.0)},
        arms={"plain": {"distillation": False}, "distilled": {}},
    )
    baselines = {arm.name: arm.baseline for arm in arms_of(sweep)}
    assert baselines["distilled label_share=0.1"] == "plain label_share=0.1"
    assert baselines["distilled label_share=1.0"] == "plain label_share=1.0"


def test_placeholders_are_filled_in_lists_too() -> None:
    arms = {"a": {"data.teachers": ["{one}", "x"], "initial.weights": "{start}"}}
    sweep = Sweep(question="?", baseline="a", arms=arms)
    (arm,) = arms_of(sweep, {"one": "small", "start": "w.safetensors"})
    assert arm.settings == {"data.teachers": ["small", "x"], "initial.weights": "w.safetensors"}
    with pytest.raises(ConfigError, match=r"give --fill start=VALUE"):
        arms_of(sweep, {"one": "small"})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"baseline": "c", "arms": {"a": {}}}, "the baseline 'c' is no arm, expected one of a"),
        ({"baseline": "a"}, "the sweep has no arm"),
        ({"baseline": "a", "arms": {"a": {}, "+ a": {}}}, "would share the run folder a"),
        ({"baseline": "+", "arms": {"+": {}}}, "needs a letter or a digit"),
        (
            {"baseline": "a", "arms": {"a": {"seed": 1}}, "grid": {"seed": (1, 2)}},
            "the arm 'a' sets seed, which the grid varies",
        ),
        (
            {"baseline": "a", "arms": {"a": {"person_views": 0}}},
            "person_views of the arm 'a' is 0; expected a number above 0",
        ),
    ],
)
def test_arms_that_cannot_be_compared_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("+", r"\+")):
        arms_of(Sweep.model_validate({"question": "?", **fields}))


def test_only_arms_that_there_are_can_be_chosen() -> None:
    arms = arms_of(Sweep(question="?", baseline="a", arms={"a": {}, "b": {}}))
    assert [arm.name for arm in chosen_arms(arms, ["b"])] == ["b"]
    assert chosen_arms(arms, []) == arms
    with pytest.raises(ConfigError, match="there is no arm 'c'; arms: a, b"):
        chosen_arms(arms, ["c"])


@pytest.mark.parametrize(
    ("value", "text"),
    [(True, "true"), (1e-4, "0.0001"), ('a "b"', r'"a \"b\""'), (["a", "b"], '["a", "b"]')],
)
def test_values_travel_to_set_as_toml(value: object, text: str) -> None:
    assert as_toml(value) == text
