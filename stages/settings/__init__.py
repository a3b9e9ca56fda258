"""Settings of the stages; they load without torch, zarr and numpy: a command line is checked fast.

training.py     train-student, train-teacher
ablate.py       ablate, and the trainings of a sweep
evaluation.py   evaluate, compare, show; store info, verify, repair, export
report.py       report
export.py       export
prediction.py   predict
benchmark.py    benchmark cache, codec, crops, store
listing.py      a list of all settings of a stage

Those of cache-teacher and of its plan are in ``pipeline/caching/settings.py``.
"""
