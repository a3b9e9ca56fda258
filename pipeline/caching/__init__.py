"""Writing of a teacher store: a teacher predicts people's views, and shards are written.

breakdown.py          CPU time by activity
cluster.py            a dask cluster: its opening, and shards assigned to its workers
cluster_worker.py     the task of a worker, and the checks that it must pass first
engines.py            writing of shards by this process, processes of this machine or a cluster
estimate.py           bytes and seconds of a store before it is written, by a trial or without
free_space.py         space for a store: what is free, and a refusal in time
inputs.py             people, teacher and views, opened and compared
prediction_stream.py  crops to encoded rows: decoding, the teacher and encoding overlap
settings.py           settings of stage one, its plan and its benchmark
shard_worker.py       one process with its teacher and the plan: writes any number of shards
stopping.py           early ends: signals, the time to finish a shard, the message
"""
