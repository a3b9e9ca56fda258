"""COCO files: annotated people, their images, detections and results, each read strictly.

annotation_columns.py   images and annotations of a file as columns
boxes.py                boxes of people in one image, and those that a file states
image_files.py          image file -> pixels, size, digest
people.py               people, their skeleton and their images as columns
poses.py                poses as columns, the rule of their score, COCO's result layout
read_everyone.py        annotation file, detections -> People, with labels and without
read_people.py          annotation file -> People with labels
records.py              the records of the JSON files, and the message of the first fault
result_files.py         keypoint results and detector boxes of any tool
skeletons.py            keypoint category -> Skeleton
"""
