"""The parts the stages are made of: no click, no printing, no knowledge of stages.

Letters in shapes, the same everywhere: ``B`` batch, ``N`` person instances, ``V`` views of a
person, ``K`` keypoints, ``H, W`` image or crop, ``Hh, Wh`` heatmap, ``C`` channels,
``D`` embedding, ``P`` visual tokens, ``M`` images.

Three frames and no others: *image*, *crop* (a network's input) and *heatmap*; see
``frames/geometry.py``.
"""
