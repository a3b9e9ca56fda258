"""Words and limits that a store's metadata and the settings share; loads no numpy."""

import re

DEFAULT_TEACHER_NAME = "teacher"
TEACHER_NAME = re.compile(r"^[a-z0-9][a-z0-9_-]{0,63}$")
SUBSAMPLINGS = ("4:4:4", "4:2:0")
MAX_QUALITY = 95
"""Above it noise takes more bytes as a JPEG than as pixels."""
MAX_CROP_MARGIN = 2.0
"""Margin of stored crops, as a fraction of the teacher's input on each side."""
MAX_WIDE_CROP_SIDE = 2048
"""Pixels of a stored crop's longer side, its margin included."""
TOKEN_KINDS = ("keypoint", "visual")
TOKEN_FORMATS = ("int8", "float16")
