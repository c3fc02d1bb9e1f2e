"""More metrics beside mIoU, for configs that always want them (docs/evaluation.md, "Several metrics in one run").

tools/test.py --ray-iou --image-metrics does the same without a config. This file defines them, the experiment lists them:

    _base_ = ['./<experiment>.py', '../_base_/evaluators.py']
    test_evaluator = [
        _base_.test_evaluator,
        dict(_base_.ray_iou, grid=_base_.grid, origins=_base_.test_dataloader.dataset),
        dict(_base_.image_metrics, grid=_base_.grid, gaussian_scale=0.27),
    ]
    model = dict(keep_logits=True)  # the image metrics want probabilities

The runtime base config imports them.
"""

ray_iou = dict(
    type='RayIoUMetric',
    preset='occ3d',  # RayIoU is published for Occ3D-nuScenes; None for other grids
    origins='data/occ3d_nuscenes/ray_origins_val.npz',  # or the config of a data set: its poses are used
    thresholds=(1, 2, 4),  # depth errors that count as right, metres
)
image_metrics = dict(
    type='RenderedImageMetric',
    gaussian_scale=None,  # metres; published: 0.27 Occ3D, 0.25 SurroundOcc, 0.1 SSCBench-KITTI-360; None: half a voxel
    with_bev=True,  # the bird's-eye view too
    bev=dict(size=400, height=None),  # pixels; metres, None: x extent of the grid
    reduction=1,  # camera images are smaller by this factor
    renderer=dict(backend=None, settings=dict()),  # of the rasteriser
    absent='exclude',  # classes that no pixel of the rendered label shows
)
