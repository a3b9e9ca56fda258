"""What is on disk: the teacher store's names, types, codecs, identity and errors.

Versioned and importable without torch: numpy, zarr, numcodecs, zstandard and google-crc32c only.
Nothing here touches a file but ``checking.py``, which looks at a whole store; what uses one is in
``pipeline/teacher_store/writer.py`` and ``pipeline/teacher_store/reader.py``.
"""
