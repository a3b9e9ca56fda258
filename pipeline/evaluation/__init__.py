"""Predicted poses -> figures.

people.py            the people that poses are compared with, and the boxes they are predicted in
stored_poses.py      the poses that a teacher store holds
coco_evaluation.py   AP and AR by pycocotools
localisation.py      OKS and PCK, person by person, and their paired differences
report.py            one row of a table, and evaluation.json
comparison.py        networks side by side, and the mean pose that they must beat
validation.py        figures of a student while it trains
"""
