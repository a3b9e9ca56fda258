"""Verify a teacher store against what was written, and repair it.

verification.py   every byte compared with metadata and digests, images with the store's digests
recomputation.py  the teacher's predictions for stored views, computed again and compared
metadata.py       repair of metadata, manifest and image digests from other bytes of the store
sources.py        the teacher and the paths that a store was written from, found again
shards.py         which shards are to be written again, and from which images
"""
