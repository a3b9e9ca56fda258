"""Stage one's work: a teacher predicts people's views, and shards of a store are written.

admission.py       checks that a worker must pass before its first shard
breakdown.py       CPU time by activity
cluster.py         shards assigned to dask workers and, when lost, to others
cluster_access.py  a cluster opened: one started here, or a running scheduler
cluster_worker.py  the task of a worker
encoded_rows.py    the rows of a shard, encoded
engines.py         who writes the shards: this process, processes of this machine, a cluster
inputs.py          people and teacher, opened and compared
planning.py        bytes and seconds of a store before it is written
shard_worker.py    one process with its teacher and the plan: writes any number of shards
sources.py         the inputs of a store, found again: its teacher and its paths
stopping.py        early ends: signals, the grace, the message
teacher_pass.py    crops to encoded rows: decoding, the teacher and encoding overlap
trial.py           a small store of a few people, written and measured
view_plans.py      the views of a plan: drawn for a new store, else those of the store
"""
