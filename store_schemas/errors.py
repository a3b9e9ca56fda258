"""Every error a teacher store raises on purpose.

StoreError             also raised itself: a store cannot be written at this place or in this way
├── SchemaError        metadata is not what this program's schema implies
├── IdentityError      the store was made from other inputs or settings than those given now
├── IncompleteError    something was not written yet, or could not be
├── LeaseError         another run writes the store
├── StorageError       the disk does not take what is written: full, read-only, gone
└── CorruptError       bytes are missing, torn or altered; names the shard and the row

A message states on one line what was wrong, expected and found, and what to do.
"""


class StoreError(Exception):
    """Base of all errors of a teacher store; itself: a store cannot be written in this way."""


class SchemaError(StoreError, ValueError):
    """Metadata is not what this program's schema implies."""


class IdentityError(StoreError, ValueError):
    """The store was made from other inputs or settings than those given now."""


class IncompleteError(StoreError):
    """A shard or a view was not written yet, or its teacher had no output for it."""


class LeaseError(StoreError):
    """Another run writes the store, or has taken it over."""


class StorageError(StoreError):
    """The disk does not take what is written."""


class CorruptError(StoreError):
    """Bytes of the store are missing, torn or altered."""
