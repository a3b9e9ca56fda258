"""Frames (image, crop and heatmap), the affines between them, and their pixels.

carrying.py     a teacher's predictions, carried from its crop into another view
crop_stream.py  crops of many people, by image and in batches; each image is decoded once
crops.py        the warp from image to crop, and crops as JPEG
geometry.py     affines between the frames
heatmaps.py     heatmaps encoded from keypoints, decoded to keypoints, mirrored
pixels.py       mean and standard deviation by which pixels are normalised
views.py        the views of a person, drawn at random
"""
