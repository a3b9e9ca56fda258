"""Heatmap teachers.

teacher.py        a network and how it is asked: preprocessing, activation, flips, frame, decoding
onnx_network.py   any ONNX file with one heatmap output, through onnxruntime
torch_network.py  a network trained by `distil train-teacher`
"""

from pipeline.teachers.teacher import HeatmapNetwork, Teacher, TeacherSettings, open_teacher

__all__ = ["HeatmapNetwork", "Teacher", "TeacherSettings", "open_teacher"]
