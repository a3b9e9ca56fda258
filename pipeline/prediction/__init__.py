"""Poses of people in images, by any network; needs boxes, not annotated keypoints.

estimators.py   crops -> keypoints and scores: students and teachers behind one protocol
networks.py     a student or teacher opened as its own file says
boxes.py        the boxes to look at: annotated or a detector's
people.py       boxes -> poses in image pixels
pose_scores.py  the score of a pose, and the removal of duplicate poses
"""
