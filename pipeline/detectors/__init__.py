"""Detectors of people: an image -> boxes with scores.

settings.py       how a detector takes its image and states its boxes; loads without numpy
outputs.py        the usual outputs of detectors -> boxes with scores
onnx_detector.py  a detector as an ONNX file
"""
