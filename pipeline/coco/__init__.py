"""COCO files: annotated people, their images, detections and results, each read strictly.

people.py        the columns that all other code works on
read_people.py   annotation file -> People      (document.py, annotations.py: its two halves)
skeletons.py     keypoint category -> Skeleton
image_files.py   image file -> pixels, size, digest
result_files.py  keypoint results and detector boxes of any tool
"""
