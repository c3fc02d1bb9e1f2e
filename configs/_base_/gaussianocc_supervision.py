"""GaussianOcc's supervision of stage 2: splatted depth against neighbouring frames, splatted classes against class maps.

A child hands ``supervision`` to ``model.aggregator``. For a host on a plain grid, take ``field.contraction`` away and set
``field.background='free'``: light that leaves the grid sees free space.
Departures from the released code, each with its option:
  * both focal lengths decide the footprint of a Gaussian, there the horizontal one alone (``renderer.fov_y='x'``);
  * all voxels are rendered into all cameras, there those of a half-space (``views.cull='half_space'``): the pictures agree;
  * pixels have their centre at +0.5 in the warp (``half_pixel=False``: as there);
  * pixels on the own car do not count, there they count as zero (``mask_mode='zero'``);
  * pixels without label do not count, there they are free space (``LoadPseudoLabels.unlabelled=17``).
"""

# 1 / sqrt(pixels of a class in the GroundedSAM maps of nuScenes), divided by the mean of all 18; 0 where there are none.
pseudo_class_weights = [0, 0.3500, 1.7407, 0.9758, 0.4498, 2.3719, 1.8660, 1.8486, 4.3596, 1.5026, 0.5519, 0.2271, 0]
pseudo_class_weights += [0.4880, 0.4833, 0.2084, 0.3120, 0.2643]

supervision = dict(
    type='RenderSupervision',
    field=dict(
        type='FreeLogitField',
        contraction=dict(point_cloud_range=[-40.0, -40.0, -1.0, 40.0, 40.0, 5.4], shape=[300, 300, 24], ratio=0.66667),
        scale=0.2,  # metres
        far_scales=[[60.0, 4.0], [80.0, 8.0]],  # beyond so many metres, so many times as large
        background='zeros',
    ),
    views=dict(type='KeyFrameCameras', size=[180, 320], cull=None),
    renderer=dict(type='SplatRenderer', fov_y='own'),
    target=dict(
        type='ImageTarget',
        frames=[-1, 1],
        size=[384, 640],
        poses=None,  # the data set's; a config of a pose network: predicted motions
        labels=True,
        masks=False,
    ),
    terms=dict(
        loss_photometric=dict(
            function='photometric',
            quantity='depth',
            weight=1.0,
            options=dict(
                min_depth=0.1, max_depth=80.0, automask=True, mask_mode='exclude', half_pixel=True, visible_only=False
            ),
        ),
        loss_smooth=dict(function='smooth', quantity='depth', weight=0.001, options=dict(min_depth=0.1, max_depth=80.0)),
        loss_pseudo_sem=dict(
            function='cross_entropy', quantity='features', weight=0.02, options=dict(class_weights=pseudo_class_weights)
        ),
        loss_opacity_entropy=dict(function='opacity_entropy', weight=0.1),
        loss_tv=dict(function='total_variation', weight=0.1),
    ),
)
