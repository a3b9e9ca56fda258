"""Heatmap teachers: networks that predict heatmaps, and how they are called and checked.

accuracy.py          accuracy on the probe, as the teacher is set and under other settings
checks.py            units, frame and accuracy measured on the probe, and refused
network.py           the protocol of a heatmap network
onnx_device.py       providers and memory of a GPU for ONNX teachers
onnx_network.py      any ONNX file with one heatmap output, through onnxruntime
opening.py           opens a teacher's file, and refuses a teacher of other keypoints
other_settings.py    the probe under other settings of the teacher
person_accuracy.py   accuracy person by person, and a paired comparison
probe.py             the crops of a few people, and the teacher's heatmaps of them
teacher.py           a network with its preprocessing, activation, flips, frame and decoding
torch_network.py     a network trained by `distil train-teacher`
"""

from pipeline.settings import TeacherSettings
from pipeline.teachers.network import HeatmapNetwork
from pipeline.teachers.opening import open_teacher
from pipeline.teachers.teacher import Teacher

__all__ = ["HeatmapNetwork", "Teacher", "TeacherSettings", "open_teacher"]
