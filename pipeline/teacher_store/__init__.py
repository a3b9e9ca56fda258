"""The teacher store on disk, as ``store_schemas`` specifies it: begin, write, resume, open, read.

plan.py               people and views as arrays and as sections of the identity, and read back
people_comparison.py  given people compared with a store's, field by field
publishing.py         plan, shard, manifest and root written as files
recovery.py           damaged shards, and images that can be read again
writer.py             a teacher begun, resumed, its shards written, and finished
shard_files.py        files of shards read whole or by pieces, compared with the manifest
stored_views.py       affines of views read row by row
shards.py             heatmaps and outputs read view by view
keypoint_reading.py   keypoints and confidences read view by view, without heatmaps
optional_reading.py   crops and tokens read view by view
reader.py             one teacher of a store opened and read
averaging.py          several teachers read as one
cached_folder.py      shards of a remote store, copied to this machine once
inspection.py         summary of a store without reading a view
description.py        that summary in words
"""
