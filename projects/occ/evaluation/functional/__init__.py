"""Stateless evaluation functions; torch and numpy only."""

from .confusion import ABSENT_POLICIES, summarize_confusion, voxel_confusion

__all__ = ['ABSENT_POLICIES', 'summarize_confusion', 'voxel_confusion']
