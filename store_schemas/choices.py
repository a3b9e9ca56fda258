"""Words and limits that a store's metadata and the settings share; loads no numpy."""

import re

DEFAULT_TEACHER_NAME = "teacher"
TEACHER_NAME = re.compile(r"^[a-z0-9][a-z0-9_-]{0,63}$")
SUBSAMPLINGS = ("4:4:4", "4:2:0")
MAX_QUALITY = 95
"""Above it noise takes more bytes as a JPEG than as pixels."""
TOKEN_KINDS = ("keypoint", "visual")
