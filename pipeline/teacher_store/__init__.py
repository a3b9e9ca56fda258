"""The teacher store on disk, as `store_schemas` specifies it.

adding.py             a further teacher over the people and views of a store
averaging.py          several teachers read as one: the mean of their heat
cached_folder.py      shards of an object store, kept in a folder of this machine
entries.py            a teacher's entry in the root metadata
inspection.py         facts of a store, complete or not, without reading a view
kept_shards.py        chunks of sharded arrays that a reading process keeps in memory
layout.py             names of all files of one teacher
manifest.py           the shards of a store, and the digests of their files
manifest_files.py     files of shards, read whole and compared, or a piece of them
manifest_reading.py   the manifest of a complete store, or the receipts of an incomplete one
opening.py            metadata and plan of a store, checked as they are read
optional_reading.py   crops and tokens, view by view
people_comparison.py  people compared with those of a store, person by person
plan.py               people, views, codec and identity, fixed before the first shard
publishing.py         the plan, a shard and the manifest as files
reader.py             open a store and read views: start reading here
recovery.py           good shards and repaired images of a store that was begun
shards.py             views read out of shard files
skeleton_json.py      the skeleton in an identity
status_reading.py     the status of every view, compared with the manifest
stored_file.py        files of which pieces are read, and the indexes of shards
stored_views.py       the stored views, compared with the identity and read row by row
writer.py             write a store: plan, shards, manifest
"""
