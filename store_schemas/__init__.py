"""The teacher store's format: names, types, codecs, identity, metadata and errors.

Versioned and importable without torch: numpy, zarr, numcodecs, zstandard and google-crc32c only.
The programs that write and read stores are in ``pipeline/teacher_store``.

choices.py          names and limits shared with the settings; loads no numpy
errors.py           every error that a store raises on purpose
metadata.py         canonical JSON, fingerprints, comparison; untrusted JSON parsed in bounds
formats.py          formats of stored heatmaps, crops and tokens; named profiles
heatmap_levels.py   heat rounded to levels of a scale per map
heatmap_codec.py    heatmaps quantised and restored, and the codec's error
token_codec.py      tokens quantised to int8 and restored, and their error
people.py           keypoints of a category, and image names as rows of bytes
keypoint_codec.py   keypoints and confidences of a store without heatmaps
teacher_store.py    schema 1: what an array of a store is, its zarr.json, and the sizes of a store
array_table.py      every array of a store, by path
stored_identity.py  identity as records: teacher, people, views, codec, options
chunks.py           chunks and shards as bytes
layout.py           arrays, files and metadata of one teacher by name, and plain arrays read
root_metadata.py    entries of the teachers in the root
manifest.py         receipts of shards, and the manifest of a complete store
checking.py         every byte of a store checked with this package alone
"""
