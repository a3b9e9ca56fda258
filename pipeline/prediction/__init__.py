"""Poses of people in images, by any network; a box with an image is enough.

box_sources.py  the boxes in each image: the whole image, those of a file, those of a detector
estimators.py   crops and people -> poses: students and teachers behind one protocol
image_poses.py  images in memory and boxes -> poses of the people in them
networks.py     a student or a teacher opened, with the settings that its own file states
pose_scores.py  the score of a pose, and the removal of duplicate poses
sample_crops.py crops of a few people, from their images or from a store
tracking.py     the same person in successive frames of a video
"""
