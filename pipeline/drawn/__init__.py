"""Drawn people with exact keypoints: the demo's data. Start at people.py."""
