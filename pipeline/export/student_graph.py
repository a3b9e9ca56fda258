"""A student with its normalisation and its decoding, as one ONNX model that describes itself."""

import copy

import torch
from torch import Tensor, nn

from pipeline.export.student_file import (
    CROPS,
    METADATA_KEY,
    OUTPUTS,
    ExportedStudent,
)
from pipeline.export.tracing import trace_onnx
from pipeline.frames.pixels import PixelNormalisation
from pipeline.models.pose_networks import Student

EXAMPLE_BATCH = 2
"""Size of the traced batch where any size is allowed; 1 could be taken for a constant."""


class StudentGraph(nn.Module):
    """A student from the pixels of crops to keypoints in crop pixels.

    With ``as_float16`` backbone and encoder compute in float16. Normalisation, head and decoding
    stay in float32: a coordinate in [0, 1] of float16 would be up to a sixteenth of a pixel off in
    a crop of 256.
    """

    factors: Tensor
    offsets: Tensor
    size_wh: Tensor

    def __init__(
        self, network: Student, pixels: PixelNormalisation, *, as_float16: bool = False
    ) -> None:
        """Copy the student, which stays as it is."""
        super().__init__()
        self.network = copy.deepcopy(network).cpu().eval()
        self.dtype = torch.float16 if as_float16 else torch.float32
        if as_float16:
            self.network.half()
            self.network.head.float()
            self.network.head.register_forward_pre_hook(
                lambda _, inputs: tuple(tensor.float() for tensor in inputs)
            )
        factors, offsets = pixels.factors_and_offsets()
        height, width = network.input_size_hw
        self.register_buffer("factors", torch.from_numpy(factors))
        self.register_buffer("offsets", torch.from_numpy(offsets))
        self.register_buffer("size_wh", torch.tensor([width, height], dtype=torch.float32))

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Predict keypoints (B, K, 2), scores (B, K) and sigmas (B, K, 2), see ``OUTPUTS``.

        crops: (B, H, W, 3) uint8, RGB.
        """
        images = (crops.float() * self.factors - self.offsets).permute(0, 3, 1, 2)
        output = self.network(images.to(self.dtype))
        return output.keypoints * self.size_wh, output.scores, output.sigmas


def export_student(network: Student, description: ExportedStudent) -> bytes:
    """Return a student as an ONNX model that carries its description.

    description: its precision is float32 or float16; int8 is made from float32.
    """
    graph = StudentGraph(
        network, description.network.pixels, as_float16=description.precision == "float16"
    )
    batch = description.batch_size or EXAMPLE_BATCH
    example = torch.zeros(batch, *network.input_size_hw, 3, dtype=torch.uint8)
    model = trace_onnx(
        graph, example, CROPS, tuple(OUTPUTS), is_dynamic=description.batch_size is None
    )
    return with_description(model, description)


def with_description(model: bytes, description: ExportedStudent) -> bytes:
    """Write the description of a student into its ONNX model, in place of a former one."""
    import onnx

    proto = onnx.load_from_string(model)
    del proto.metadata_props[:]
    proto.metadata_props.add(key=METADATA_KEY, value=description.model_dump_json())
    height, width = description.network.input_size_hw
    (crops,) = proto.graph.input
    crops.doc_string = f"(batch, {height}, {width}, 3) uint8, RGB: padded boxes of people"
    for output in proto.graph.output:
        output.doc_string = OUTPUTS[output.name]
    return proto.SerializeToString()
