"""Heatmap teachers: networks that predict heatmaps, and how they are called and checked.

accuracy.py          accuracy on the probe, as the teacher is set and under other settings
checks.py            units, frame and accuracy measured on the probe, and refused
huggingface_network.py  ViTPose of Hugging Face's transformers
network.py           the protocol of a heatmap network
onnx_device.py       providers and memory of a GPU for ONNX teachers
onnx_network.py      any ONNX file with heatmaps, or with SimCC's distributions, through onnxruntime
opening.py           opens a teacher's file, and refuses a teacher of other keypoints
other_settings.py    the probe under other settings of the teacher
person_accuracy.py   accuracy person by person, and a paired comparison
probe.py             the crops of a few people, and the teacher's heatmaps of them
simcc.py             heatmaps of networks that predict one distribution along each axis
teacher.py           a network with its preprocessing, activation, flips, frame and decoding
torch_network.py     a network trained by `distil train-teacher`, or a published checkpoint
"""

from pipeline.settings import TeacherSettings
from pipeline.teachers.network import HeatmapNetwork
from pipeline.teachers.opening import open_teacher
from pipeline.teachers.teacher import Teacher

__all__ = ["HeatmapNetwork", "Teacher", "TeacherSettings", "open_teacher"]
