"""Heatmap teachers: networks that predict heatmaps, and how they are called and checked.

checks.py         the probe of a few people, and units, frame and accuracy measured on it
network.py        the protocol of a heatmap network
onnx_network.py   any ONNX file with one heatmap output, through onnxruntime
opening.py        opens a teacher's file, and refuses a teacher of other keypoints
teacher.py        a network with its preprocessing, activation, flips, frame and decoding
torch_network.py  a network trained by `distil train-teacher`
"""

from pipeline.settings import TeacherSettings
from pipeline.teachers.network import HeatmapNetwork
from pipeline.teachers.opening import open_teacher
from pipeline.teachers.teacher import Teacher

__all__ = ["HeatmapNetwork", "Teacher", "TeacherSettings", "open_teacher"]
