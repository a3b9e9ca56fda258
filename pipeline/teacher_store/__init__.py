"""The teacher store on disk, as ``store_schemas`` specifies it: begin, write, resume, open, read.

plan.py               people and views as arrays and as sections of the identity
people_comparison.py  given people compared with a store's, field by field
opening.py            layout of a teacher in a folder; people and views read from it
publishing.py         plan, shard, manifest and root written as files
recovery.py           damaged shards, and images that can be read again
writer.py             a teacher's shards written, resumed and finished
beginning.py          a teacher begun, in a new store or beside others
shard_files.py        files of shards read whole or by pieces, compared with the manifest
stored_views.py       affines of views read row by row
shards.py             heatmaps and outputs read view by view
optional_reading.py   crops and tokens read view by view
reader.py             one teacher of a store opened and read
averaging.py          several teachers read as one
cached_folder.py      shards of a remote store, copied to this machine once
inspection.py         summary of a store without reading a view
"""
