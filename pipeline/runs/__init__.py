"""Runs: the files that a training writes and that other commands read.

run_folder.py       the files of a run, and whether it can be started or resumed; provenance
run_state.py        how far a run is, how long it took, and its validations
checkpoints.py      weights and training states as safetensors
published_files.py  checkpoints that others have published, as tensors, networks and students
initial_weights.py  weights that a training starts from: of another run, or pretrained ones
"""
