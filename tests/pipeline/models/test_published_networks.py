"""Published checkpoints: outputs equal to the published models' own, written out in the tests."""

import ast
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from pipeline.errors import ConfigError
from pipeline.models.published_names import naming_of, own_names
from pipeline.models.published_networks import build_published, renamed_tensors
from tests.support import published_forward as published
from tests.support.published_checkpoints import PUBLISHED, drawn, encoder_shapes, head_shapes

TOKENPOSE_S = "tokenpose_tokenpose_s_v1_256_192_patch43_dim192_depth12_heads8"
TOKENPOSE_S_V2 = "tokenpose_tokenpose_s_v2_256_192_patch22_dim192_depth12_heads8"
TOKENPOSE_T = "tokenpose_tokenpose_t_256_192_patch1612_dim192_depth12_heads16"
TOKENPOSE_L = "tokenpose_tokenpose_L_D24_256_192_patch43_dim192_depth24_heads12"
TOKENPOSE_L_384 = "tokenpose_tokenpose_L_D24_384_288_patch64_dim192_depth24_heads12"
TEACHER_S, TEACHER_L = (
    "distilpose_teacher_stemnet_coco_256x192",
    "distilpose_teacher_hr48_coco_256x192",
)
STUDENT_S, STUDENT_L = (
    "distilpose_DistilPose_S_coco_256x192",
    "distilpose_DistilPose_L_coco_256x192",
)
PLAIN_S, PLAIN_L = "distilpose_stemnet_coco_256x192", "distilpose_hr48_3stage_coco_256x192"

Forward = Callable[[published.Tensors, Tensor], Tensor]


def stem_encoder(prefix: str, stem: str, patch_hw: tuple[int, int], scale: float) -> Forward:
    return lambda t, x: (
        published.encode(t, prefix, published.stem(t, stem, x), patch_hw, 8, scale).outputs
    )


def hrnet_encoder(
    prefix: str, hrnet: str, stages: int, patch_hw: tuple[int, int], heads: int
) -> Forward:
    return lambda t, x: (
        published.encode(
            t, prefix, published.hrnet(t, hrnet, x, stages), patch_hw, heads, (192 / heads) ** -0.5
        ).outputs
    )


def vitpose(t: published.Tensors, x: Tensor) -> Tensor:
    return published.vitpose(t, x, num_heads=12)


def hrnet_pose(t: published.Tensors, x: Tensor) -> Tensor:
    return published.conv_head(t, "", published.hrnet(t, "", x, 4))


BY_WIDTH, BY_HEAD = 192**-0.5, 24**-0.5
HEAD = "keypoint_head."
TEACHERS: dict[str, tuple[str, Forward, dict[str, Any]]] = {
    "hrnet-w32": ("hrnet_w32_256x192", hrnet_pose, {"input_size_hw": (64, 96)}),
    "simplebaseline-r50": (
        "simplebaseline_res50_256x192",
        published.simplebaseline,
        {"input_size_hw": (64, 96)},
    ),
    "vitpose-s": ("vitpose_small_classic_256x192", vitpose, {}),
    "tokenpose-s-v1": (
        TOKENPOSE_S,
        stem_encoder("features.", "features.", (4, 3), BY_WIDTH),
        {"architecture": "tokenpose-s-v1"},
    ),
    "tokenpose-t": (
        TOKENPOSE_T,
        lambda t, x: published.encode(t, "transformer.", x, (16, 12), 16, 12**-0.5).outputs,
        {},
    ),
    "tokenpose-s of DistilPose": (
        TEACHER_S,
        stem_encoder(f"{HEAD}tokenpose.", "backbone.", (4, 3), BY_HEAD),
        {},
    ),
}
LARGE: dict[str, tuple[str, Forward, dict[str, Any]]] = {
    "tokenpose-s": (
        TOKENPOSE_S,
        stem_encoder("features.", "features.", (4, 3), BY_HEAD),
        {"architecture": "tokenpose-s"},
    ),
    "tokenpose-s-v2": (
        TOKENPOSE_S_V2,
        stem_encoder("features.", "features.", (2, 2), BY_WIDTH),
        {},
    ),
    "hrnet-w32 whole": ("hrnet_w32_256x192", hrnet_pose, {}),
    "hrnet-w48": ("hrnet_w48_256x192", hrnet_pose, {}),
    "hrnet-w48 384x288": ("hrnet_w48_256x192", hrnet_pose, {"input_size_hw": (384, 288)}),
    "simplebaseline-r50 whole": ("simplebaseline_res50_256x192", published.simplebaseline, {}),
    "vitpose-b": ("vitpose_base_classic_256x192", vitpose, {}),
    "tokenpose-l": (
        TOKENPOSE_L,
        hrnet_encoder("transformer.", "pre_feature.", 3, (4, 3), 12),
        {},
    ),
    "tokenpose-l-384x288": (
        TOKENPOSE_L_384,
        hrnet_encoder("transformer.", "pre_feature.", 3, (6, 4), 12),
        {},
    ),
    "tokenpose-hrnet48": (
        TEACHER_L,
        hrnet_encoder(f"{HEAD}tokenpose.", "backbone.", 4, (4, 3), 8),
        {},
    ),
}
STUDENTS = {
    STUDENT_S: stem_encoder(f"{HEAD}tokenhead.", "backbone.", (4, 3), BY_HEAD),
}
LARGE_STUDENTS = {
    PLAIN_S: stem_encoder(f"{HEAD}tokenhead.", "backbone.", (4, 3), BY_HEAD),
    STUDENT_L: hrnet_encoder(f"{HEAD}tokenhead.", "backbone.", 3, (4, 3), 8),
    PLAIN_L: hrnet_encoder(f"{HEAD}tokenhead.", "backbone.", 3, (4, 3), 8),
}


def crops_for(size_hw: tuple[int, int]) -> Tensor:
    return torch.randn(1, 3, *size_hw, generator=torch.Generator().manual_seed(1))


def is_close(found: Tensor, expected: Tensor) -> bool:
    """Outputs of drawn weights are far from constant, so that their scale is a fair one."""
    assert expected.std() > 0.02
    return bool((found - expected).abs().max() <= 1e-4 * max(1, expected.abs().max().item()))


@torch.inference_mode()
def check_teacher(inventory: str, forward: Forward, options: dict[str, Any]) -> None:
    tensors = drawn(PUBLISHED[inventory]())
    found = build_published(tensors, **options)
    assert found.unused == ()
    assert found.heatmap_frame == ("udp" if "vitpose" in inventory else "msra")
    crops = crops_for(found.network.input_size_hw)
    heatmaps = found.network(crops).heatmaps
    expected = forward(tensors, crops).reshape(heatmaps.shape)
    assert is_close(heatmaps, expected)


@torch.inference_mode()
def check_student(inventory: str, forward: Forward) -> None:
    tensors = drawn(PUBLISHED[inventory]())
    found = build_published(tensors)
    assert found.unused == ()
    crops = crops_for(found.network.input_size_hw)
    output, raw = found.network(crops), forward(tensors, crops)
    assert is_close(output.keypoints, raw[..., :2].sigmoid())
    assert found.has_scores == (raw.shape[-1] == 5)
    if found.has_scores:
        assert is_close(output.scores, raw[..., 2])
        assert is_close(output.sigmas, functional.softplus(raw[..., 3:5]))


@pytest.mark.parametrize("case", TEACHERS)
def test_teachers_predict_what_their_published_code_predicts(case: str) -> None:
    check_teacher(*TEACHERS[case])


@pytest.mark.slow
@pytest.mark.parametrize("case", LARGE)
def test_large_teachers_predict_what_their_published_code_predicts(case: str) -> None:
    check_teacher(*LARGE[case])


@pytest.mark.parametrize("inventory", STUDENTS)
def test_students_predict_what_their_published_code_predicts(inventory: str) -> None:
    check_student(inventory, STUDENTS[inventory])


@pytest.mark.slow
@pytest.mark.parametrize("inventory", LARGE_STUDENTS)
def test_large_students_predict_what_their_published_code_predicts(inventory: str) -> None:
    check_student(inventory, LARGE_STUDENTS[inventory])


@pytest.mark.shared
@pytest.mark.parametrize("inventory", PUBLISHED)
def test_names_and_shapes_are_those_of_the_real_checkpoints(
    inventory: str, shared_folder: Path
) -> None:
    lines = (shared_folder / "checkpoint_keys" / f"{inventory}.txt").read_text().splitlines()
    real = {name: ast.literal_eval(shape) for name, shape in (x.split("\t") for x in lines)}
    assert PUBLISHED[inventory]() == real


@pytest.mark.shared
def test_every_real_checkpoint_is_covered(shared_folder: Path) -> None:
    found = {path.stem for path in (shared_folder / "checkpoint_keys").glob("*.txt")}
    assert found == PUBLISHED.keys()


def in_mmpose_1(name: str) -> str:
    """The name that mmpose 1.x has for a parameter of ViTPose or of a convolutional head."""
    renamed = {
        "keypoint_head.": "head.", "patch_embed.proj.": "patch_embed.projection.",
        ".blocks.": ".layers.", ".norm1.": ".ln1.", ".norm2.": ".ln2.", "last_norm.": "ln1.",
        ".mlp.fc1.": ".ffn.layers.0.0.", ".mlp.fc2.": ".ffn.layers.1.",
    }  # fmt: skip
    for ours, theirs in renamed.items():
        name = name.replace(ours, theirs)
    return name


def test_names_of_mmpose_1_are_those_of_vitpose() -> None:
    """There the position of the class token is added to those of the patches beforehand."""
    old = drawn(PUBLISHED["vitpose_small_classic_256x192"]())
    new = {in_mmpose_1(name): tensor for name, tensor in old.items()}
    positions = old["backbone.pos_embed"]
    new["backbone.pos_embed"] = positions[:, 1:] + positions[:, :1]
    expected, found = build_published(old).tensors, build_published(new).tensors
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("head", ["keypoint_head.", "head."])
@pytest.mark.parametrize("inventory", ["hrnet_w32_256x192", "simplebaseline_res50_256x192"])
def test_mmpose_puts_prefixes_before_the_names_of_hrnet_and_simplebaseline(
    inventory: str, head: str
) -> None:
    plain = PUBLISHED[inventory]()
    is_head = {name: name.startswith(("final_layer", "deconv_layers")) for name in plain}
    with_prefixes = {f"{head if is_head[n] else 'backbone.'}{n}": n for n in plain}
    naming, others = naming_of(plain), naming_of(with_prefixes)
    assert naming == others
    assert naming is not None
    expected = own_names(naming, plain)
    assert len(set(expected.values())) == len(plain)
    found = own_names(naming, with_prefixes)
    assert {with_prefixes[name]: own for name, own in found.items()} == expected


def test_layers_of_three_transformers_are_counted_through() -> None:
    shapes = encoder_shapes("transformer.", 256, 576, [3072], groups=3, depth=24)
    naming = naming_of(shapes)
    assert naming is not None
    own = own_names(naming, shapes)
    assert len(set(own.values())) == len(shapes)
    for group, index, number in ((1, 0, 0), (1, 7, 7), (2, 0, 8), (3, 7, 23)):
        name = f"transformer.transformer{group}.layers.{index}.0.fn.fn.to_qkv.weight"
        assert own[name] == f"encoder.layers.{number}.qkv.weight"
    assert own["transformer.mlp_head.1.weight"] == "head.linear.weight"


@pytest.mark.parametrize(
    ("dim", "depth", "num_heads", "name"),
    [(384, 12, 12, "vitpose-s"), (768, 12, 12, "vitpose-b"), (1024, 24, 16, "vitpose-l"),
     (1280, 32, 16, "vitpose-h")],
)  # fmt: skip
def test_depth_and_heads_of_vitpose_follow_from_its_width(
    dim: int, depth: int, num_heads: int, name: str
) -> None:
    """As in the configurations of ViTPose; crops of 384 x 288 have 24 x 18 patches."""
    from pipeline.models.published_networks import _vitpose

    ((found, build),) = _vitpose(
        {"backbone.body.pos_embed": torch.empty(1, 432, dim, device="meta")}, (0, 0)
    ).items()
    with torch.device("meta"):
        network: Any = build(17)
    assert found == network.architecture == name
    blocks = network.backbone.body.blocks
    assert (len(blocks), blocks[0].attn.num_heads) == (depth, num_heads)
    assert network.input_size_hw == (384, 288)
    assert network.heatmap_size_hw == (96, 72)


def test_the_scale_of_attention_is_asked_for() -> None:
    with pytest.raises(ConfigError, match=r"do not tell how attention is scaled; give "
                       r"--architecture tokenpose-s-v1 \(by 1 / sqrt\(width\).*; "
                       r"--architecture tokenpose-s \("):  # fmt: skip
        build_published(drawn(PUBLISHED[TOKENPOSE_S]()))


def test_small_patches_are_cut_and_scaled_as_by_tokenpose_s() -> None:
    network: Any = build_published(drawn(PUBLISHED[TOKENPOSE_S_V2]())).network
    layer = network.encoder.layers[11]
    assert network.architecture == "tokenpose-s-v2"
    assert network.encoder.patch_size_hw == (2, 2)
    assert (layer.num_heads, layer.attention_scale) == (8, pytest.approx(1 / math.sqrt(192)))


def test_a_student_without_distillation_has_neither_scores_nor_sigmas() -> None:
    tensors = drawn(PUBLISHED[PLAIN_S]())
    found = build_published(tensors)
    weight = found.network.state_dict()["head.linear.weight"]
    assert not found.has_scores
    assert torch.equal(weight[:2], tensors[f"{HEAD}tokenhead.mlp_head.1.weight"])
    assert not weight[2:].any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("transformer.patch_to_embedding.bias"), "patch_embedding.bias is missing"),
        (
            lambda t: t.update({"transformer.transformer.layers.12.0.fn.norm.bias": torch.ones(9)}),
            r"encoder\.layers\.12\.attention_norm\.bias has no place there",
        ),
        (
            lambda t: t.update({"transformer.pos_embedding": torch.zeros(1, 273, 192)}),
            r"encoder\.positions has shape \(1, 273, 192\), expected \(1, 256, 192\)",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_refused(
    change: Callable[[dict[str, Tensor]], object], message: str
) -> None:
    tensors = drawn(PUBLISHED[TOKENPOSE_T]())
    change(tensors)
    with pytest.raises(ConfigError, match=f"the tensors are not those of tokenpose-t: .*{message}"):
        build_published(tensors)


def test_other_tensors_are_named_and_counts_of_batches_may_be_missing() -> None:
    tensors = drawn(PUBLISHED["simplebaseline_res50_256x192"]())
    lean = {name: t for name, t in tensors.items() if not name.endswith("num_batches_tracked")}
    found = build_published({**lean, "fc.weight": torch.zeros(3, 2), "fc.bias": torch.zeros(3)})
    assert found.unused == ("fc.weight", "fc.bias")
    assert len(found.network.state_dict()) == len(tensors)


def test_half_precision_is_loaded_as_float32() -> None:
    tensors = drawn(PUBLISHED[TOKENPOSE_T]())
    halves = {name: tensor.half() for name, tensor in tensors.items()}
    state = build_published(halves).network.state_dict()
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"architecture": "tokenpose-s"}, "architecture is tokenpose-s, but the tensors are those "
         "of tokenpose-t; leave the option out"),
        ({"input_size_hw": (384, 288)}, r"tokenpose-t takes crops of 256x192 .*, but --input-size "
         "is 384x288"),
    ],
)  # fmt: skip
def test_settings_that_contradict_the_tensors_are_refused(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        build_published(drawn(PUBLISHED[TOKENPOSE_T]()), **options)


def test_unknown_tensors_and_backbones_alone_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"\(encoder\.0\.weight, \.\.\.\) are of no published"):
        build_published({"encoder.0.weight": torch.zeros(1)})
    shapes = PUBLISHED["hrnet_w32_256x192"]()
    backbone = drawn({name: shape for name, shape in shapes.items() if "final" not in name})
    with pytest.raises(ConfigError, match="there is no final layer"):
        build_published(backbone)


def test_the_simple_head_of_vitpose_is_refused() -> None:
    shapes = PUBLISHED["vitpose_small_classic_256x192"]()
    simple = {name: shape for name, shape in shapes.items() if "keypoint_head" not in name}
    simple |= {"keypoint_head.final_layer.weight": (17, 384, 3, 3)}
    with pytest.raises(
        ConfigError, match=r"not those of vitpose-s: head\.deconvolution1\.0\.weight"
    ):
        build_published(drawn(simple))


def test_a_backbone_has_the_names_of_a_student_that_starts_from_it() -> None:
    shapes = PUBLISHED["hrnet_w48_256x192"]() | head_shapes("", 48, 0)
    own = renamed_tensors({name: torch.empty(shape) for name, shape in shapes.items()})
    with torch.device("meta"):
        from pipeline.models import build_student

        student = build_student("distilpose-l", 17)
    wanted = {n: t.shape for n, t in student.state_dict().items() if n.startswith("backbone.")}
    assert {n: own[n].shape for n in wanted} == wanted
