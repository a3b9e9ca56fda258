"""Networks: images in, keypoints (students) or heatmaps (teachers) out; no data and no losses.

pose_networks.py    the networks by name, each assembled in one literal call: start reading here
trunks.py           the parts that a student and the teacher of its size share: backbone and encoder
backbones.py        images -> feature map: the strided convolutional stem and residual stages
timm_trunks.py      images -> feature map by any classifier of timm, and its pretrained weights
high_resolution.py  images -> feature map by the highest resolution of HRNet
vision_transformer.py  images -> feature map by the vision transformer of ViTPose
token_encoder.py    feature map -> keypoint and visual tokens, the same for student and teacher
attention.py        the attention of a token encoder, recorded while it runs
heads.py            keypoint tokens or feature map -> the outputs of a network, as records
published_names.py  parameter names of published checkpoints, and ours for the same parameters
published_networks.py  published networks, rebuilt from the tensors of their checkpoints
cost.py             parameters and multiply-adds
"""

from pipeline.models.pose_networks import (
    STUDENTS,
    TEACHERS,
    build_network,
    build_student,
    build_teacher,
)

__all__ = ["STUDENTS", "TEACHERS", "build_network", "build_student", "build_teacher"]
