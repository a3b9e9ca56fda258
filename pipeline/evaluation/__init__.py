"""Predicted poses -> figures.

pose_scores.py, pose_results.py       poses, their score, duplicates; COCO's result layout
coco_evaluation.py, localisation.py   AP / AR by pycocotools; OKS, PCK and their differences
report.py, comparison.py              one row of a table; networks side by side
mean_pose.py                          the baseline that sees nothing
evaluated_networks.py, stored_poses.py, validation.py   where poses come from
person_boxes.py                       where a network looks for people
"""
