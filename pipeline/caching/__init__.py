"""Stage one's work: what one shard takes, and the engines that have shards done.

shard_worker  one process with its teacher and the plan: writes any number of shards
engines       hand out shards: in this process, one after another
"""
