"""Supervision along LiDAR rays without rendering: free points in front of the surface, one point inside it (docs/rendering.md).

A child hands ``ray_queries`` to ``model.aggregator``, with a dataset base that has rays (``_base_/datasets/*_rays.py``). Rays,
draws and class weights are those of ``_base_/ray_supervision.py``, so that the two differ in the loss alone.
"""

_base_ = ['./ray_supervision.py']

ray_queries = dict(
    type='RenderSupervision',
    field=dict(type='DensityField', source='density', features='logits', form='dvgo'),
    views=dict(type='MeasuredRays', min_depth=0.0, max_depth=52.0, inside=False),
    renderer=dict(type='RayQueries', free_points=8, near=0.0, open_rays=False),  # near: metres
    target=dict(type='RayQueryTarget', labels=True),
    terms=dict(
        loss_ray_points=dict(function='point_cross_entropy', view='ray', quantity='opacity', weight=1.0),
        loss_ray_sem=dict(
            function='cross_entropy',
            view='ray',
            quantity='features',
            weight=1.0,
            options=dict(class_weights=None, class_counts=_base_.occ3d_counts),
        ),
    ),
    weight=1.0,
)
