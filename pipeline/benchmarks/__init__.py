"""What ``distil benchmark store`` measures, and how every benchmark writes its figures.

multiplied.py    a store of any number of views, out of a real one's shards
drawn_views.py   which views are read, and the same maps in other formats
readers.py       ways to read a batch of views
reading.py       their speed, side by side in one process
figures.py       what was measured
figures_file.py  the JSON file of any benchmark
processes.py     opening time, private memory of a worker, cost of targets to a loader
"""
