"""Networks: images in, keypoints (students) or heatmaps (teachers) out; no data and no losses.

backbones.py      images -> feature map: the strided convolutional stem and residual stages
token_encoder.py  feature map -> keypoint and visual tokens, the same for student and teacher
heads.py          keypoint tokens -> the outputs of a network, as records
pose_networks.py  the networks by name, each assembled in one literal call: start reading here
attention.py      the attention of a token encoder, recorded while it runs
cost.py           parameters and multiply-adds
"""

from pipeline.models.pose_networks import (
    STUDENTS,
    TEACHERS,
    build_network,
    build_student,
    build_teacher,
)

__all__ = ["STUDENTS", "TEACHERS", "build_network", "build_student", "build_teacher"]
