"""What trains a network: the same loop for students and teachers.

losses.py, objectives.py       loss terms; network + batch -> loss
optimisation.py                optimiser and learning rate
sources.py, data.py, images.py, view_order.py   people -> batches, from a store or freshly drawn
loop.py                        epochs, metrics, checkpoints
checkpoints.py, run_folder.py  what a run leaves on disk
"""
