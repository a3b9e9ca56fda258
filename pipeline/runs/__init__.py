"""Runs: what a training writes, and what everybody else reads of it.

run_folder.py       the files of a run, and whether it can start or go on
checkpoints.py      weights and training states as safetensors
initial_weights.py  weights of another run that a training starts from
provenance.py       versions and hardware, recorded and never compared
"""
