"""Heatmap teachers.

teacher.py        a network and how it is asked: preprocessing, activation, flips, frame, decoding
network.py        what a network must offer
onnx_network.py   any ONNX file with one heatmap output, through onnxruntime
torch_network.py  a network trained by `distil train-teacher`
teacher_pass.py   crops in, encoded views out, for a range of people
encoded_rows.py   what comes out of it
probe.py          a look at a few people first
checks.py         what the probe tells of a mis-set teacher: units, frame, accuracy
"""

from pipeline.settings import TeacherSettings
from pipeline.teachers.network import HeatmapNetwork
from pipeline.teachers.opening import open_teacher
from pipeline.teachers.teacher import Teacher

__all__ = ["HeatmapNetwork", "Teacher", "TeacherSettings", "open_teacher"]
