"""Whether a teacher store still is what was written, and how it becomes so again.

verification.py   every byte compared with what the metadata promise
recomputation.py  what the teacher gives for stored views now, compared with what is stored
mending.py        what follows from other bytes of a store, written again
sources.py        the teacher and the paths that a store was written from, found again
redo.py           which shards are to be written again, and from which images
"""
