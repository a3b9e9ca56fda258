"""Writing of a teacher store: a teacher predicts people's views, and shards are written.

admission.py          checks that a worker must pass before its first shard
breakdown.py          CPU time by activity
cluster.py            shards assigned to dask workers and, when lost, to others
cluster_access.py     opens a cluster: one started here, or a running scheduler
cluster_worker.py     the task of a worker
encoded_rows.py       the rows of a shard, and the one place that encodes predictions into them
engines.py            writing of shards by this process, processes of this machine or a cluster
estimate.py           bytes and seconds of a store before it is written
inputs.py             people, teacher and views, opened and compared
prediction_stream.py  crops to encoded rows: decoding, the teacher and encoding overlap
settings.py           settings of stage one, its plan and its benchmark
shard_worker.py       one process with its teacher and the plan: writes any number of shards
stopping.py           early ends: signals, the time to finish a shard, the message
trial.py              a small store of a few people, written and measured
"""
