"""GaussRender with rays in the place of Gaussians: label and prediction are marched through the same cameras.

The experiment that tells what splatting does: the same views, target and losses as in gaussrender.py. Images are rendered at a
quarter of their width, because marching costs by the pixel. A child hands ``supervision`` to ``model.aggregator``.
"""

supervision = dict(
    type='RenderSupervision',
    field=dict(type='ClassLogitsField', feat_channels=None),
    views=dict(
        type='SampledCameras',
        sampler=dict(type='SensorCameras', num_cameras=None, weights=[2, 1, 1, 2, 1, 1], reduction=4),
        bev=dict(size=200),
    ),
    renderer=dict(type='MarchRenderer', form='nerf', sampling='uniform', step=0.5, transmittance_min=1e-3, weight_min=1e-7),
    target=dict(type='LabelTarget', min_depth=0.1),
    terms=dict(
        loss_render_cam_sem=dict(function='l1', view='cam', weight=10.0),
        loss_render_cam_depth=dict(function='depth_l1', view='cam', quantity='depth', weight=10.0, options=dict(metres=50.0)),
        loss_render_bev_sem=dict(function='l1', view='bev', weight=10.0),
        loss_render_bev_depth=dict(function='depth_l1', view='bev', quantity='depth', weight=10.0, options=dict(metres=100.0)),
    ),
)
