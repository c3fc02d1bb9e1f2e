"""The fixtures of a small scene, with a numpy splatter to compare with."""

from small_scene import cameras, centers, feats, grid, labels, logits, make_camera, reference_splat

__all__ = ['cameras', 'centers', 'feats', 'grid', 'labels', 'logits', 'make_camera', 'reference_splat']
