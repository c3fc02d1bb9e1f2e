"""Annotation files of every format and a tiny data root."""

from annotation_files import formats, tiny_root  # noqa: F401
