"""Stage one's work: a teacher predicts people's views, and shards of a store are written.

inputs             people, teacher and views, opened and compared
prediction_stream  crops to encoded rows: decoding, the teacher and encoding overlap
encoded_rows       the rows of a shard, and the one place that encodes predictions into them
shard_worker       one process with its teacher and the plan: writes any number of shards
breakdown          CPU time by activity
trial              a small store of a few people, written and measured
estimate           bytes and seconds of a store before it is written
stopping           early ends: signals, the grace, the message
engines            who writes the shards: this process, processes of this machine, a cluster
cluster            shards assigned to dask workers and, when lost, to others
cluster_access     opens a cluster: one started here, or a running scheduler
cluster_worker     the task of a worker
admission          checks that a worker must pass before its first shard
"""
