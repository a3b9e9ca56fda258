"""Predicted poses -> figures.

average_precision.py  AP under weights of the images, for its intervals
coco_evaluation.py    AP and AR by pycocotools
comparison.py         networks side by side, and the mean pose that they must beat
inference_cost.py     parameters, multiply-adds, time and memory of networks in one runtime
inputs.py             the people of an evaluation, and the poses that a teacher store holds
intervals.py          95 % intervals of figures and of paired differences
kept_evaluations.py   figures of a student, measured once and kept by the digest of its weights
localisation.py       OKS and PCK, person by person, and their paired differences
onnx_models.py        networks as ONNX models, and what such a model costs
peak_memory.py        the peak memory of a network, in a process of its own
reliability.py        whether the score of a pose is the OKS that it has
report.py             one row of a table, and evaluation.json
validation.py         figures of a student while it trains
"""
