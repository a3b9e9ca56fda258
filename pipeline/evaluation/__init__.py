"""Predicted poses -> figures.

coco_evaluation.py  AP and AR by pycocotools
comparison.py       networks side by side
localisation.py     OKS and PCK, person by person, and their paired differences
mean_pose.py        the mean pose, a baseline without a network
report.py           one row of a table, and evaluation.json
stored_poses.py     the poses that a teacher store holds
validation.py       figures of a student while it trains
"""
