"""Drawn people with exact keypoints: the demo's data. Start reading at ``people.py``.

canvas.py    pixels with exact sub-pixel edges, and the label of the shape that shows at each
clothes.py   clothes, skin and hair of one person, drawn at random
figure.py    one person: body parts painted from far to near
head.py      the head: hair, eyes and mouth on an ellipsoid
parts.py     labels of body parts, and which keypoints show
people.py    images of people, and their COCO annotations
scenery.py   background, light, distractors, things in front, and the camera
skeleton.py  random bodies in three dimensions, in random poses
"""
