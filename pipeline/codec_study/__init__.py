"""What ways of storing heatmaps cost and change, measured on the maps of real people.

inputs.py         whom a study looks at, and in which views
teacher_maps.py   a teacher's live maps of some people's views, a batch at a time
candidates.py     the ways: how heat becomes levels, and how levels become bytes
fidelity.py       what quantising changes: heat, decoded keypoints, OKS, AP
study.py          all candidates over the same maps, sizes and times interleaved
crop_study.py     the teacher looking at crops as they are and as JPEG
"""
