"""Runs: the files that a training writes and that other commands read.

run_folder.py       the files of a run, and whether it can be started or resumed
checkpoints.py      weights and training states as safetensors
initial_weights.py  weights of another run that a training starts from
provenance.py       versions and hardware, recorded and never compared
"""
