"""Class and depth maps of a frame's cameras by casting rays at its voxels; needs no rasteriser."""

from collections.abc import Sequence

import numpy as np

from ..structures import OccDataSample
from .figures import RenderedMaps, stack_views
from .view_cameras import project_matrix, scale_image
from .voxel_painter import VoxelPainter


def cast_maps(
    sample: OccDataSample, painter: VoxelPainter, width: int | None = None, kinds: Sequence[str] = ('gt_occ', 'pred_occ')
) -> RenderedMaps:
    """Casts one ray per pixel.

    Args:
        sample: With ``gt_occ`` and/or ``pred_occ`` and the cameras (``ref2cam``, ``cam2img``, ``ori_img_wh``).
        painter: Knows the grid.
        width: Width of the maps, pixels; None for that of the original images. The field of view is that of the images.
        kinds: Fields to cast, where the sample has them.

    Returns:
        The maps; bird's-eye maps are not among them.
    """
    maps = {}
    matrices = project_matrix(sample.ref2cam, sample.cam2img)
    sizes = np.rint(np.asarray(sample.ori_img_wh)).astype(int)
    if width is not None:
        sizes = np.stack([(width, max(1, round(h * width / w))) for w, h in sizes])
        factors = sizes / np.asarray(sample.ori_img_wh, dtype=np.float64)
        matrices = np.stack([scale_image(matrix, *factor) for matrix, factor in zip(matrices, factors, strict=True)])
    for field in kinds:
        kind, labels = field.removesuffix('_occ'), sample.get(field)
        if labels is not None:
            labels = labels.cpu().numpy()
            views = [
                painter.camera(labels, matrix, int(w), int(h), samples=1)
                for matrix, (w, h) in zip(matrices, sizes, strict=True)
            ]
            maps[f'{kind}_classes'] = stack_views([view.labels for view in views])
            maps[f'{kind}_depth'] = stack_views([view.depth for view in views])
    return RenderedMaps(**maps, how='one ray per pixel cast at the voxels')
