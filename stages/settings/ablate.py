"""Settings of ``distil ablate``, and the trainings that a sweep and these settings describe."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import Field

from pipeline.ablation.sweep import (
    Arm,
    FlatSettings,
    PersonViews,
    Settings,
    Sweep,
    arms_of,
    as_toml,
    chosen_arms,
    read_sweep,
    varied_settings,
)
from pipeline.config import OutputFolder, StageConfig, load_config
from pipeline.errors import ConfigError
from pipeline.settings import MAX_PROCESSES
from stages import PRESETS, preset_file
from stages.settings.training import TrainStudentConfig

SWEEPS = PRESETS / "sweeps"
ONE_CORE: Mapping[str, Any] = {"num_threads": 1, "num_loader_workers": 0}
"""Settings of every training unless they are set: one core each, so that several run at once."""
FREE_TO_DIFFER = frozenset(
    {
        *("num_loader_workers", "data.image_cache_mib", "data.on_corrupt", "data.paranoid"),
        *("data.store_cache", "store", "annotations", "images", "val_annotations", "val_images"),
    }
)
"""Settings that may differ when a sweep is continued: they change no result, or are only paths."""


class AblateConfig(StageConfig):
    """All settings of ``distil ablate``."""

    sweep: str
    """Sweep: a TOML file, or the name of a shipped one."""
    output: OutputFolder
    """Folder for the run folders, the evaluations and the table."""
    parallel: int = Field(1, ge=1, le=MAX_PROCESSES)
    """Number of trainings that run at once, each on one core unless num_threads is set."""
    only: tuple[str, ...] = ()
    """Names of the arms to train, with commas between them; the table keeps the others."""
    seeds: tuple[int, ...] = ()
    """Seeds of the trainings, with commas between them; by default those of the sweep."""
    person_views: PersonViews | None = None
    """Number of person-views of each training, where an arm does not set its own; by default the
    sweep's."""
    baseline: str | None = None
    """Name of the arm that all others are compared with, in place of the sweep's baselines."""
    fill: dict[str, str] = Field(default_factory=dict)
    """Values of the placeholders in the sweep's arms."""
    settings: FlatSettings = Field(default_factory=dict)
    """Settings of train-student for all arms, over those of the sweep."""


@dataclass(frozen=True)
class PlannedRun:
    """One training of a sweep."""

    arm: Arm
    seed: int
    settings: Settings
    """All settings over the preset's, by dotted name."""
    config: TrainStudentConfig
    """The same as a configuration; epochs are those of the settings."""

    @property
    def name(self) -> str:
        """Name of its run folder."""
        return self.arm.run_name(self.seed)

    def with_epochs(self, epochs: int, evaluate_every_epochs: int) -> "PlannedRun":
        """Return this run with another length."""
        changes = {"epochs": epochs, "evaluate_every_epochs": evaluate_every_epochs}
        return PlannedRun(
            self.arm,
            self.seed,
            {**self.settings, **changes},
            self.config.model_copy(update=changes),
        )

    def command(self, run_folder: Path, *, resume: bool) -> tuple[str, ...]:
        """Return the words of the ``train-student`` command that does it."""
        words = ["train-student", "--preset", self.arm.preset, "--run-folder", str(run_folder)]
        for name, value in self.settings.items():
            words += ["--set", f"{name}={as_toml(value)}"]
        return (*words, *(["--resume"] if resume else []))


@dataclass(frozen=True)
class Plan:
    """A sweep and its trainings, checked against the settings of ``train-student``."""

    sweep: Sweep
    arms: tuple[Arm, ...]
    """All arms, in order."""
    runs: tuple[PlannedRun, ...]
    """All trainings, seed by seed, so that a sweep that is cut short compares all arms."""
    chosen: frozenset[str]
    """Names of the arms to train."""


def sweep_file(name: str) -> Path:
    """Return the TOML file of a sweep: a path, or the name of a shipped one.

    Raises:
        ConfigError: there is neither.
    """
    shipped = SWEEPS / f"{name}.toml"
    if shipped.parent == SWEEPS and shipped.is_file():
        return shipped
    if Path(name).is_file():
        return Path(name)
    known = ", ".join(sorted(file.stem for file in SWEEPS.glob("*.toml")))
    raise ConfigError(
        f"there is no sweep {name!r}: neither a file nor a shipped one; shipped: {known}"
    )


def plan_sweep(config: AblateConfig) -> Plan:
    """Read a sweep, and build the configuration of every training.

    Raises:
        ConfigError: the sweep is at fault, or a setting is unknown, out of range, contradicts
            another, or is given although the arms differ in it.
    """
    sweep = read_sweep(sweep_file(config.sweep))
    changes = {"seeds": config.seeds, "person_views": config.person_views}
    sweep = sweep.model_copy(update={name: value for name, value in changes.items() if value})
    arms = arms_of(sweep, config.fill)
    if config.baseline is not None:
        chosen_arms(arms, [config.baseline])
        arms = [replace(arm, baseline=config.baseline) for arm in arms]
    if clash := sorted(config.settings.keys() & (varied_settings(sweep) | {"seed"})):
        what = "is that of the sweep's seeds" if clash[0] == "seed" else "differs between the arms"
        raise ConfigError(f"{clash[0]} {what}, so it cannot be set for all of them; leave it out")
    runs = tuple(
        _plan_run(sweep, arm, seed, config.settings) for seed in sweep.seeds for arm in arms
    )
    chosen = frozenset(arm.name for arm in chosen_arms(arms, config.only))
    return Plan(sweep, tuple(arms), runs, chosen)


def _plan_run(sweep: Sweep, arm: Arm, seed: int, given: Settings) -> PlannedRun:
    settings = {**ONE_CORE, **sweep.settings, **given, **arm.settings, "seed": seed}
    if arm.person_views is not None and "epochs" in settings:
        raise ConfigError(
            f"the arm {arm.name!r} has both epochs and person_views; leave one of them out"
        )
    try:
        config = load_config(TrainStudentConfig, preset=preset_file(arm.preset), fields=settings)
    except ConfigError as error:
        raise ConfigError(f"the arm {arm.name!r}: {error}") from error
    return PlannedRun(arm, seed, settings, config)
