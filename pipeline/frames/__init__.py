"""Frames (image, crop and heatmap), the affines between them, and their pixels.

crop_stream.py   crops of many people, by image and in batches; each image is decoded once
crops.py         the warp from image to crop
geometry.py      affines between the frames
heatmaps.py      heatmaps encoded from keypoints, decoded to keypoints, mirrored
pixels.py        mean and standard deviation by which pixels are normalised
stored_crops.py  crops encoded as JPEG and decoded
views.py         the views of a person, drawn at random
"""
