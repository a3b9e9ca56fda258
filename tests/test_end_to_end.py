"""All commands one after another on a few drawn people, as a user types them."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cli import main

TINY = ("--epochs", 1, "--batch-size", 8, "--workers", 0, "--threads", 1)


def distil(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def said(*arguments: object) -> str:
    """Run a command that must succeed and return what it printed."""
    result = distil(*arguments)
    assert result.exit_code == 0, (arguments, result.output, result.exception)
    return result.stdout


def refused(*arguments: object) -> str:
    """Run a command that must fail and return its one line."""
    result = distil(*arguments)
    assert result.exit_code == 1, (arguments, result.output, result.exception)
    assert result.stderr.count("\n") == 1
    return result.stderr


def write_teacher_of_brightness(path: Path) -> None:
    """Write an ONNX teacher that gives 17 maps of how bright the crop is, 0 to 1."""
    onnx = pytest.importorskip("onnx")
    helper, FLOAT = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["crops", "channels"], ["grey"], keepdims=1),
            helper.make_node(
                "AveragePool", ["grey"], ["small"], kernel_shape=[4, 4], strides=[4] * 2
            ),
            helper.make_node("Tile", ["small", "repeats"], ["heatmaps"]),
        ],
        "brightness",
        [helper.make_tensor_value_info("crops", FLOAT, ["batch", 3, 128, 96])],
        [helper.make_tensor_value_info("heatmaps", FLOAT, ["batch", 17, 32, 24])],
        [
            helper.make_tensor("channels", onnx.TensorProto.INT64, [1], [1]),
            helper.make_tensor("repeats", onnx.TensorProto.INT64, [4], [1, 17, 1, 1]),
        ],
    )
    opset = helper.make_opsetid("", 18)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=9), path)


def test_the_commands_work_one_after_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    people: tuple[Any, ...] = (
        "--annotations",
        "train/annotations.json",
        "--images",
        "train/images",
    )
    said("draw-people", "--output", "train", "--images", 6, "--seed", 5)

    # A teacher of one's own. One epoch teaches it nothing, and caching it is refused.
    trained = said(
        *("train-teacher", *people, "--teacher", "tokenpose-xs", "--run-folder", "runs/t", *TINY),
        *("--float16-copy", "half.safetensors"),
    )
    assert trained.splitlines()[-1].startswith("runs/t: 1 epoch, ")
    whole = Path("runs/t/checkpoints/best.safetensors").stat().st_size
    assert 0.45 * whole < Path("half.safetensors").stat().st_size < 0.6 * whole
    cache = ("cache-teacher", *people, "--store", "teacher.zarr", "--views", 2)
    assert "--heatmap-activation sigmoid" in refused(*cache, "--teacher", "runs/t")
    assert not Path("teacher.zarr").exists()

    # A teacher from elsewhere, of the right units: heat between 0 and 1.
    write_teacher_of_brightness(Path("m.onnx"))
    asked: tuple[Any, ...] = ("--teacher", "m.onnx", "--mean", "0,0,0", "--std", "1,1,1")
    asked = (*asked, "--heatmap-frame", "half-pixel")
    assert "--accept-weak-teacher" in refused(*cache, *asked, "--plan")
    assert "views" in said(*cache, *asked, "--plan", "--no-probe")
    assert "--no-probe must be left out without --plan" in refused(*cache, *asked, "--no-probe")
    assert not Path("teacher.zarr").exists()
    assert "--accept-weak-teacher" in refused(*cache, *asked)
    assert "teacher.zarr is complete" in said(*cache, *asked, "--accept-weak-teacher")
    assert "another path" in refused(
        *cache, *asked, "--accept-weak-teacher", "--seed", 1, "--resume"
    )

    student: tuple[Any, ...] = (
        "train-student",
        "--store",
        "teacher.zarr",
        "--images",
        "train/images",
        *TINY,
    )
    student = (*student, "--preset", "distilpose-xs")
    said(*student, "--run-folder", "runs/a", "--val-annotations", "train/annotations.json")
    said(
        *student,
        "--run-folder",
        "runs/b",
        "--no-distillation",
        "--init-weights",
        "half.safetensors",
    )
    assert "already holds a run" in refused(*student, "--run-folder", "runs/a")
    more = said(*student, "--run-folder", "runs/b", "--no-distillation", "--resume", "--epochs", 2,
                "--init-weights", "half.safetensors")  # fmt: skip
    assert more.splitlines()[-1].startswith("runs/b: 2 epochs")

    for evaluated in (
        ("--run-folder", "runs/a", *people),
        ("--run-folder", "runs/b", *people, "--no-flip-test", "--output", "out"),
        ("--teacher", "runs/t", *people),
        ("--store", "teacher.zarr"),
        ("--predictions", "out/results.json", *people[:2]),
    ):
        assert "AP, own score" in said("evaluate", *evaluated)
    report = json.loads(Path("runs/a/evaluation.json").read_text())
    assert {"AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL"} <= set(report)
    missed = distil("evaluate", "--run-folder", "runs/a", *people, "--min-ap", 0.9)
    assert missed.exit_code == 1

    arms = ("--arm", "distilled=runs/a", "--arm", "plain=runs/b")
    compared = said("compare", *people, *arms, "--mean-pose", "train/annotations.json")
    assert "distilled minus plain" in compared

    said("show", "teacher.zarr", "--output", "people.png", "--people", 2)
    assert Path("people.png").stat().st_size > 10_000
