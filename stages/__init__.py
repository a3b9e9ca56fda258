"""The programs: each stage is one function, readable top to bottom; they meet only on disk.

cache_teacher.py, train_student.py, evaluate.py   the way from a teacher to a measured student
plan_cache.py                                     an estimate of what the first of them costs
train_teacher.py                                  a teacher of one's own
compare.py, ablate.py                             students side by side; sweeps over settings
report.py                                         a page about runs, with all that is known of them
export.py                                         a student as one verified ONNX file
show.py, show_student.py, show_attention.py       pictures of a store, a student, its attention
run_people.py                                     the people that pictures and reports of a run show
demo.py                                           everything on drawn people
store_info.py, store_verify.py, store_repair.py, store_export.py   programs for one store
benchmark_cache.py, benchmark_codec.py, benchmark_crops.py, benchmark_store.py   figures of one's
                                                  own machine
benchmark_train.py, benchmark_loader.py, benchmark_inference.py   the same, beside their limits

settings/                                         the settings of the stages
presets/                                          shipped settings; a teacher's end in -teacher
commands/                                         the command line that calls them, as cli.py
"""

from pathlib import Path
from typing import Literal

from pipeline.errors import ConfigError

PRESETS = Path(__file__).parent / "presets"

Role = Literal["student", "teacher"]


def preset_file(name: str, role: Role = "student") -> Path:
    """Return the TOML file of a shipped preset.

    Raises:
        ConfigError: there is no preset of that name, or it is one of the other role's.
    """
    path = PRESETS / f"{name}.toml"
    presets = {preset.stem: _role(preset) for preset in PRESETS.glob("*.toml")}
    known = ", ".join(sorted(preset for preset in presets if presets[preset] == role))
    if name not in presets:
        raise ConfigError(f"there is no preset {name!r}; presets of train-{role}: {known}")
    if presets[name] != role:
        raise ConfigError(
            f"preset {name!r} is for train-{presets[name]}; presets of train-{role}: {known}"
        )
    return path


def _role(preset: Path) -> Role:
    return "teacher" if preset.stem.endswith("-teacher") else "student"
