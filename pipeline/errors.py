"""The errors that the pipeline raises on purpose.

Only the command line turns them into one line and exit code 1.

DistilError
├── ConfigError        a setting is unknown, out of range, or contradicts another
├── PeopleError        an annotation file or an image header contradicts itself or the images
│   └── ImageError     an image's bytes cannot be decoded whole
├── TeacherError       a teacher cannot be loaded, or is set up wrongly for these people
├── RunFolderError     a run folder cannot be resumed, or holds another run
├── ExportError        an exported student cannot be opened, or is not what its run is
├── ClusterError       no worker of a cluster can do the work, or one thing failed on several
├── ObjectStoreError   an object store does not answer, or refuses; its files may be intact
├── TrainingError      a loss or a gradient is not finite
└── Stopped            a signal ended the run; it can be resumed

A message says what was wrong, what was expected, what was found and what to do, on one line.
"""


class DistilError(Exception):
    """Base of the errors whose message is written for the person at the terminal."""


class ConfigError(DistilError, ValueError):
    """A setting is unknown, out of range, or contradicts another."""


class PeopleError(DistilError, ValueError):
    """An annotation file or an image header contradicts itself or the images."""


class ImageError(PeopleError):
    """An image's bytes cannot be decoded whole."""


class TeacherError(DistilError, ValueError):
    """A teacher cannot be loaded, or is set up wrongly for these people."""


class RunFolderError(DistilError, ValueError):
    """A run folder cannot be resumed, or holds another run."""


class ExportError(DistilError, ValueError):
    """An exported student cannot be opened, or is not what its run is."""


class ClusterError(DistilError, RuntimeError):
    """No worker of a cluster can do the work, or one thing failed on several."""


class ObjectStoreError(DistilError):
    """An object store does not answer, or refuses.

    It is no ``StoreError``: a file that cannot be read now is not damaged, and must not be repaired
    or replaced.
    """


class TrainingError(DistilError, ArithmeticError):
    """A loss or a gradient is not finite."""


class Stopped(DistilError):
    """A signal ended the run; it can be resumed."""
