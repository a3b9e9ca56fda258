"""COCO files: annotated people, their images, detections and results, each read strictly.

annotations.py   the annotations of a file -> columns of people
document.py      the JSON document as records, and the contradictions in it
image_files.py   image file -> pixels, size, digest
people.py        the columns that all other code works on
poses.py         predicted poses as columns
pose_results.py  predicted poses -> COCO results
read_people.py   annotation file -> People
result_files.py  keypoint results and detector boxes of any tool
skeletons.py     keypoint category -> Skeleton
"""
