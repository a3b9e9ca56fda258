"""Image, crop and heatmap: where a point is, and what is seen there.

geometry.py      affines between the frames
views.py         which views of a person there are
crops.py         the one warp from image to crop
crop_stream.py   crops of many people, each image decoded once
heatmaps.py      keypoints <-> heatmaps
"""
