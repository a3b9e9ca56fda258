"""COCO files: annotated people, their images, detections and results, each read strictly.

people.py        people, their skeleton and their images as columns
records.py       the records of the JSON files, and the message of the first fault
skeletons.py     keypoint category -> Skeleton
annotations.py   images and annotations of a file as columns
read_people.py   annotation file -> People
image_files.py   image file -> pixels, size, digest
poses.py         poses as columns, the rule of their score, COCO's result layout
result_files.py  keypoint results and detector boxes of any tool
"""
