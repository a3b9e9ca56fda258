"""Poses of people in images, by any network; a box with an image is enough.

estimators.py   crops and people -> poses: students and teachers behind one protocol
networks.py     a student or a teacher opened, with the settings that its own file states
pose_scores.py  the score of a pose, and the removal of duplicate poses
sample_crops.py crops of a few people, from their images or from a store
"""
