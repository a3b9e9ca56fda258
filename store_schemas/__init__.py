"""The teacher store's format: names, types, codecs, identity, metadata and errors.

Versioned and importable without torch: numpy, zarr, numcodecs, zstandard and google-crc32c only.
The programs that write and read stores are in ``pipeline/teacher_store``.

choices.py          names and limits shared with the settings; loads no numpy
errors.py           every error that a store raises on purpose
identity.py         canonical JSON, fingerprints, comparison of identities field by field
metadata.py         untrusted JSON parsed in bounds
names.py            image names as rows of bytes
profiles.py         named settings of stored heatmaps
heatmap_levels.py   heat rounded to levels of a scale per map
heatmap_codec.py    heatmaps quantised and restored, and the codec's error
optional_arrays.py  formats of crops and tokens
skeleton.py         keypoints of a category
teacher_store.py    schema 1: every array of a store, and the sizes they follow from
stored_identity.py  identity as records: teacher, people, views, codec, options
array_spec.py       zarr.json and file names of one array
blosc_chunks.py     Blosc chunks decoded with a kept context
chunks.py           chunks and shards as bytes
reading.py          metadata and plain arrays read by name
layout.py           arrays, files and metadata of one teacher by name
root_metadata.py    entries of the teachers in the root
manifest.py         receipts of shards, and the manifest of a complete store
checking.py         every byte of a store checked with this package alone
"""
