"""What every command of ``distil benchmark`` measures; the product imports nothing of it.

caching_speed.py   how near stage one comes to the limit of its teacher and its cores
codec_study.py     ways to store heatmaps, what each costs and changes, over the same heatmaps
crop_study.py      what keeping crops as JPEG changes for a teacher
fidelity.py        people of a study, a teacher's heatmaps of them, and what storing them changes
figures.py         figures of a store, how rounds are timed, and the JSON file of any benchmark
loading_speed.py   how busy a loader keeps a training, and what an epoch costs with more people
processes.py       what a store of any size costs a process: opening, memory, loading batches
reading.py         speed of readers of views: this program's, zarr's, and other formats
shared_training.py steps of two processes beside those of one
steps.py           training steps to measure: random weights, batches of drawn numbers
training_speed.py  steps beside their limits: plain, distilled, with the teacher in the loop
"""
