"""A run that is asked to stop does so in time, loses no shard that is there, and says so."""

import os
import re
import signal
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cli import main
from pipeline.caching.stopping import StopRequest
from pipeline.errors import Stopped
from pipeline.teachers import Teacher
from pipeline.teachers.checks import check_teacher
from pipeline.teachers.network import Prediction
from stages import cache_teacher as stage
from stages.cache_teacher import cache_teacher
from tests.stages.conftest import patch_writing
from tests.support.clean_process import exit_code, start_process


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def running(grace: float) -> tuple[StopRequest, Clock, list[str]]:
    said: list[str] = []
    clock = Clock()
    return StopRequest(grace, said.append, clock), clock, said


def test_a_shard_whose_rest_fits_into_the_grace_is_finished() -> None:
    stop, clock, said = running(grace=20)
    with stop.running_shards([100, 100]):
        clock.now = 90.0
        stop.add_views(90)
        stop.request()
        clock.now = 91.0
        stop.add_views(1)
        assert [text.split(";")[0] for text in said] == [
            "stopping when this shard is finished, in about 9 s"
        ]
        clock.now = 100.0
        stop.add_views(9)
        with pytest.raises(Stopped):
            stop.check()


def test_a_shard_whose_rest_is_longer_than_the_grace_is_given_up_at_the_next_batch() -> None:
    stop, clock, said = running(grace=20)
    with stop.running_shards([100, 100]):
        clock.now = 150.0
        stop.add_views(150)
        stop.request()
        with pytest.raises(Stopped):
            stop.add_views(1)
    assert said == []


def test_a_shard_that_slows_down_is_given_up_when_it_would_overrun_the_grace() -> None:
    stop, clock, _ = running(grace=20)
    with stop.running_shards([100]):
        clock.now = 90.0
        stop.add_views(90)
        stop.request()
        stop.add_views(1)
        clock.now = 109.0
        with pytest.raises(Stopped):
            stop.add_views(1)


def test_a_second_request_and_one_outside_the_shards_are_obeyed_at_once() -> None:
    stop, _, _ = running(grace=20)
    with pytest.raises(Stopped):
        stop.request()
    stop, _, _ = running(grace=20)
    with stop.running_shards([100]):
        stop.request()
        assert stop.is_requested()
        with pytest.raises(Stopped):
            stop.request()


def test_the_handlers_of_signals_are_those_of_before_when_the_run_is_over(inputs: Any) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    cache_teacher(inputs.config(views=0))
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_a_run_in_another_thread_installs_no_handlers(inputs: Any) -> None:
    seen: list[object] = []

    def say(_: str) -> None:
        seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=lambda: cache_teacher(inputs.config(views=0), say=say))
    thread.start()
    thread.join()
    assert set(seen) == {signal.SIG_DFL}


def test_a_forked_worker_dies_when_it_is_told_to() -> None:
    stop = StopRequest(20)
    with stop.guarding():
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
        time.sleep(0.1)
        os.kill(child, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
    assert not stop.is_requested()


def run_slowly(arguments: list[str], seconds: float, output: Path, errors: Path) -> None:
    """Run the command with a teacher that takes so long for a batch, and says when it saw one."""
    for descriptor, path in ((1, output), (2, errors)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    patch, predict = pytest.MonkeyPatch(), Teacher.predict
    patch_writing(patch)

    def slowly(teacher: Teacher, *given: Any, **options: Any) -> Prediction:
        time.sleep(seconds)
        print("batch", flush=True)
        return predict(teacher, *given, **options)

    def check_then_slow(*given: Any, **options: Any) -> Any:
        units = check_teacher(*given, **options)
        patch.setattr(Teacher, "predict", slowly)
        return units

    patch.setattr(stage, "check_teacher", check_then_slow)
    main(arguments)


class SlowRun:
    """The command in a process of its own, with a teacher that takes its time."""

    def __init__(self, inputs: Any, seconds: float, *more: str) -> None:
        """Start it and wait for the eighth batch: the second of the second shard of six."""
        self.output, self.errors = inputs.folder / "output.txt", inputs.folder / "errors.txt"
        config = inputs.config()
        arguments = [
            *("cache-teacher", "--annotations", config.annotations, "--images", config.images),
            *("--teacher", config.teacher, "--store", config.store, "--views", "2"),
            *("--batch-size", "1", "--teacher-threads", "1", "--accept-weak-teacher"),
            *("--heatmap-frame", "half-pixel", "--heatmap-activation", "sigmoid", *more),
        ]
        self.output.touch()
        work = partial(
            run_slowly, [str(argument) for argument in arguments], seconds, self.output, self.errors
        )
        self.process = start_process(work)
        until = time.monotonic() + 100
        while self.output.read_text().count("batch\n") < 8:
            assert self.process.is_alive(), self.errors.read_text()
            assert time.monotonic() < until, self.output.read_text()
            time.sleep(0.01)

    def send(self, number: int) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def exit_code(self) -> int:
        return exit_code(self.process)

    def refusal(self) -> str:
        """Return the one line of stderr."""
        assert self.exit_code() == 1, self.errors.read_text()
        lines = self.errors.read_text().splitlines()
        assert len(lines) == 1, lines
        return lines[0]


def check_resumed(inputs: Any) -> None:
    assert not (inputs.store / "writer.json").exists()
    cache_teacher(inputs.config(teacher_settings__batch_size=1), resume=True)
    whole = inputs.config(teacher_settings__batch_size=1, store=str(inputs.folder / "whole.zarr"))
    cache_teacher(whole)
    assert inputs.digests() == inputs.digests(Path(whole.store))


@pytest.mark.parametrize(
    ("number", "grace", "num_shards", "why"),
    [
        (signal.SIGTERM, "20", 2, "stopped by SIGTERM"),
        (signal.SIGTERM, "0.1", 1, "stopped by SIGTERM"),
        pytest.param(signal.SIGINT, "20", 2, "stopped", marks=pytest.mark.slow),
    ],
)
def test_a_signal_finishes_the_shard_if_the_grace_allows_and_the_run_goes_on_later(
    inputs: Any, number: int, grace: str, num_shards: int, why: str
) -> None:
    """The second shard of six batches is running; four more take about a second."""
    process = SlowRun(inputs, 0.25, "--grace", grace)
    began = time.monotonic()
    process.send(number)
    line = process.refusal()
    assert time.monotonic() - began < 20
    assert line.startswith(f"distil: {why}; {inputs.store} has {num_shards} of ")
    assert line.endswith(": continue with the same command and --resume")
    check_resumed(inputs)


@pytest.mark.slow
def test_a_second_ctrl_c_stops_at_once(inputs: Any) -> None:
    process = SlowRun(inputs, 1.0, "--grace", "60")
    process.send(signal.SIGINT)
    time.sleep(0.2)
    began = time.monotonic()
    process.send(signal.SIGINT)
    assert re.match(r"distil: stopped; \S+ has 1 of 6 shards: continue", process.refusal())
    assert time.monotonic() - began < 3
    check_resumed(inputs)


def test_two_runs_at_once_end_with_one_that_says_who_is_writing(inputs: Any) -> None:
    """The command, while another process writes the store."""
    process = SlowRun(inputs, 0.1)
    process.send(signal.SIGSTOP)
    try:
        config = inputs.config()
        result = CliRunner().invoke(
            main,
            [
                *("cache-teacher", f"--annotations={config.annotations}"),
                *(f"--images={config.images}", f"--teacher={config.teacher}"),
                *(f"--store={config.store}", "--resume"),
            ],
        )
    finally:
        process.send(signal.SIGCONT)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert f"{inputs.store} is being written by run " in result.stderr
    assert f", process {process.process.pid} on " in result.stderr
    assert "; wait for it, or replace it with --take-over" in result.stderr
    assert process.exit_code() == 0, process.errors.read_text()
