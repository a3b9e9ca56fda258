"""Predicted poses -> figures.

coco_evaluation.py  AP and AR by pycocotools
comparison.py       networks side by side, and the mean pose that they must beat
localisation.py     OKS and PCK, person by person, and their paired differences
people.py           the people that poses are compared with, and the boxes they are predicted in
report.py           one row of a table, and evaluation.json
stored_poses.py     the poses that a teacher store holds
validation.py       figures of a student while it trains
"""
