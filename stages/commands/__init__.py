"""The commands of `distil`, part of the command line as `cli.py`: parse, call one stage, print.

caching.py      cache-teacher
training.py     train-student, train-teacher
evaluation.py   evaluate, compare, show
store.py        store and the commands below it
benchmark.py    benchmark and the commands below it
drawing.py      draw-people, demo
options.py      what they share: options, their headings in --help, one-line errors

No logic lives here. Stages are imported inside their command, so that `distil --help` costs nothing
of torch, zarr or OpenCV.
"""
