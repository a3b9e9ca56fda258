"""Stage one's work: what one shard takes, and the engines that have shards done.

inputs        people and teacher, opened and found to fit
shard_worker  one process with its teacher and the plan: writes any number of shards, overlapped
breakdown     where its time goes
trial         a small store of a few people, measured: planning predicts from it, speed compares
engines       who does the shards: this process, processes of this machine, a cluster
cluster       shards handed out to dask workers and, when lost, to others
cluster_access  the way to a cluster: one started here, or a running scheduler
cluster_worker  what a worker runs
admission     what a worker proves before its first shard
"""
