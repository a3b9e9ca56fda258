"""The model card: a Markdown file beside an exported student that says what it is and how good.

Its head is the metadata that the Hugging Face hub reads (huggingface.co/docs/hub/model-cards).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from pipeline.export.student_file import CROPS, OUTPUTS, ExportedStudent

Facts = Mapping[str, object]


@dataclass(frozen=True)
class FiguresOfFile:
    """Size, speed and accuracy of one file of a student."""

    name: str
    """Precision of the exported student, or ``run`` for the weights of its run in torch."""
    num_bytes: int
    largest_difference: float | None = None
    """Largest difference of an output from torch; None: it is torch."""
    ms_batch_1: float | None = None
    """Shortest time of a crop in onnxruntime on one core, which is what the machine can do; None:
    not measured."""
    ms_batch_64: float | None = None
    ap: float | None = None
    """AP by the student's own score, under the flip test; None: not measured."""
    mean_oks: float | None = None

    def as_cells(self) -> tuple[str, ...]:
        """Return the figures as text, in the order of ``TITLES``."""
        return (
            self.name,
            f"{self.num_bytes / 1e6:.2f}",
            _text(self.ms_batch_1, "{:.1f}"),
            _text(self.ms_batch_64, "{:.0f}"),
            _text(self.largest_difference, "{:.1g}"),
            _text(self.ap, "{:.3f}"),
            _text(self.mean_oks, "{:.3f}"),
        )


TITLES = ("", "MB", "ms at 1", "ms at 64", "difference", "AP", "mean OKS")


def model_card(
    name: str,
    description: ExportedStudent,
    rows: Sequence[FiguresOfFile],
    *,
    licence: str,
    measured_on: str | None,
    settings: Facts,
    versions: Facts,
    teacher: Facts,
    digests: Mapping[str, str],
) -> str:
    """Write the card of an exported student as Markdown.

    name: of the file. licence: identifier of the hub, such as apache-2.0.
    measured_on: the annotations that AP was measured on; None: it was not.
    settings: of the run. versions: of the packages that it began with. teacher: what its store
        says of it; empty: the store is not at hand.
    digests: digest by name of what it is of.
    Of paths the last name alone is written: folders of one machine are nobody else's business.
    """
    info = description.network
    height, width = info.input_size_hw
    accuracy = (
        f"AP and mean OKS are of `{measured_on}`, in the annotated boxes, under the flip test."
        if measured_on
        else "AP was not measured when this file was written."
    )
    sections = (
        f"---\nlicense: {licence}\nlibrary_name: onnx\npipeline_tag: keypoint-detection\n"
        "tags:\n- pose-estimation\n- distillation\n---",
        f"# {name}",
        f"A network that finds {len(info.keypoint_names)} keypoints of a person in a crop of "
        f"{height} x {width} (height x width): `{info.architecture}`, "
        f"{description.num_parameters:,} parameters, {description.num_multiply_adds / 1e6:.0f} M "
        f"multiply-adds, in {description.precision}. "
        + (
            f"It was trained by `distil` for {info.epoch} epochs and exported "
            if info.step
            else "Its weights are a published checkpoint, exported by `distil` "
        )
        + "as one ONNX graph, normalisation and decoding inside.",
        "## Use",
        f"Input `{CROPS}`: (batch, {height}, {width}, 3) uint8, RGB, where batch is "
        f"{description.batch_size or 'any number'}. A crop is a person's box, widened to the "
        f"crop's aspect and enlarged by {info.padding:g}. Outputs:\n\n"
        + "\n".join(f"- `{output}`: {meaning}" for output, meaning in OUTPUTS.items()),
        _scores(description),
        "Names of keypoints, edges, mirrored pairs, sigmas, mean and standard deviation are JSON "
        "under the key `distil` of the file's metadata.\n\n```python\nimport onnxruntime\n\n"
        f'session = onnxruntime.InferenceSession("{name}")\n'
        f'keypoints, scores, sigmas = session.run(None, {{"{CROPS}": crops}})\n```',
        "## Figures",
        _table(rows),
        "ms: shortest in onnxruntime on one core of a CPU, without the flip test. difference: "
        "largest difference of an output from torch, keypoints in widths and heights of the crop. "
        + accuracy,
        "## Data",
        _list(_data(settings), "The run names no data."),
        "## Teacher",
        _list(teacher, "The teacher store was not at hand when this file was written."),
        "## Settings",
        f"```json\n{json.dumps(_last_names(settings), indent=2)}\n```",
        "## Versions",
        _list(versions, "The run names no versions."),
        "## Digests (SHA-256)",
        _list(digests, ""),
        "## Limits",
        "Measured figures hold for people like those it was measured on. The licence is the field "
        "above; that of the training images and of the teacher may restrict it further.",
    )
    return "\n\n".join(section for section in sections if section) + "\n"


def _scores(description: ExportedStudent) -> str:
    rule = description.network.rule
    if rule.kind == "one":
        return "No keypoint's score was trained: rank poses by the score of their box alone."
    trained = rule.scored_keypoints or ()
    return (
        f"The score of a pose is the mean of the scores of {len(trained)} trained keypoints "
        f"(indices {', '.join(map(str, trained))}), times the score of its box."
    )


def _data(settings: Facts) -> Facts:
    names = ("store", "annotations", "images", "val_annotations")
    return {name.replace("_", " "): settings[name] for name in names if settings.get(name)}


def _table(rows: Sequence[FiguresOfFile]) -> str:
    lines = [TITLES, ("---", *["---:"] * (len(TITLES) - 1)), *(row.as_cells() for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _list(facts: Facts, otherwise: str) -> str:
    lines = [f"- {name}: {value}" for name, value in _last_names(facts).items()]
    return "\n".join(lines) or otherwise


def _last_names(facts: Facts) -> dict[str, object]:
    """Return facts with the last name of every absolute path, at any depth."""
    return {name: _last_name(value) for name, value in facts.items()}


def _last_name(value: object) -> object:
    if isinstance(value, Mapping):
        return _last_names(value)
    if isinstance(value, list | tuple):
        return [_last_name(part) for part in value]
    if isinstance(value, str) and PurePath(value).is_absolute():
        return PurePath(value).name
    return value


def _text(figure: float | None, form: str) -> str:
    return "-" if figure is None else form.format(figure)
