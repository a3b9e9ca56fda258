"""Verify a teacher store against what was written, and repair it.

verification.py   every byte compared with metadata and digests, images with the store's digests
recomputation.py  predictions of a store's teacher, computed again and compared
metadata.py       repair of metadata, manifest and image digests from other bytes of the store
shards.py         which shards are to be written again, and from which images
"""
