"""What every command of ``distil benchmark`` measures; the product imports nothing of it.

caching_speed.py     how near stage one comes to the limit of its teacher and its cores
codec_candidates.py  ways to store heatmaps: quantisation, then packing
codec_study.py       what each of them costs and changes, over the same heatmaps
crop_study.py        what keeping crops as JPEG changes for a teacher
fidelity.py          people of a study, a teacher's heatmaps of them, and what storing them changes
figures.py           figures of a store, how rounds are timed, and the JSON file of any benchmark
multiplied.py        a store of any number of views, by hard links to the shards of a real one
processes.py         what a store costs a process: opening, memory, batches of a loader
readers.py           ways to read a batch of views: this program's, zarr's, and other formats
reading.py           speed of these readers, each in turns with raw float16
"""
