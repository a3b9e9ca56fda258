"""Predicted poses -> figures.

average_precision.py  AP under weights of the images, for its intervals
coco_evaluation.py    AP and AR by pycocotools
comparison.py         networks side by side, and the mean pose that they must beat
inference_cost.py     parameters, multiply-adds, time and memory of networks in one runtime
inputs.py             the people of an evaluation, and the poses that a teacher store holds
localisation.py       OKS and PCK, person by person, and their paired differences
onnx_models.py        networks as ONNX models, and what such a model costs
peak_memory.py        the peak memory of a network, in a process of its own
report.py             one row of a table, and evaluation.json
validation.py         figures of a student while it trains
"""
