"""Image, crop and heatmap: the frames, the affines between them, and the pixels in them.

crop_stream.py  crops of many people, by image and in batches; each image is decoded once
crops.py        the warp from image to crop, and crops as JPEG
geometry.py     affines between the frames
heatmaps.py     keypoints <-> heatmaps
pixels.py       mean and standard deviation by which pixels are normalised
views.py        the views of a person, drawn at random
"""
