"""Supervision by LiDAR rays: rendered depth and classes against what was measured (RenderOcc, UniOcc; docs/rendering.md).

A child hands one of the blocks to ``model.aggregator``, with a dataset base that has rays (``_base_/datasets/*_rays.py``):
``renderocc`` alone, or beside voxel losses; ``uniocc`` beside voxel losses. Both march as RenderOcc does: DVGO's rule, mip-360
sampling twice per voxel, rays end behind the sample that leaves them 0.1 % of their light.
Departures from the released code of RenderOcc, each with its option:
  * depth is rendered in metres along the optical axis and compared with measured depth along the axis; there it is a
    contracted length along the ray (``renderer.depth_mode='contracted'``, ``renderer.depth='range'``);
  * voxel centres lie half a voxel inside the grid (``renderer.align_corners=True``), which has its true height
    (``renderer.z_bound='ratio'``);
  * the self term of the distortion has the widths of the samples (``renderer.distortion='flat'``).
What the rays themselves do otherwise is listed at ``LoadLidarRays``.
"""

# Voxels of each class in the labels of Occ3D-nuScenes, in the order of its names; the cross-entropy weighs with 1 / ln of them.
occ3d_counts = [1163161, 2309034, 188743, 2997643, 20317180, 852476, 243808, 2457947, 497017, 2731022, 7224789]
occ3d_counts += [214411435, 5565043, 63191967, 76098082, 128860031, 141625221, 2307405309]
# SurroundOcc-nuScenes: the same classes without "others", free space first.
surroundocc_counts = [2307405309, *occ3d_counts[1:17]]

renderocc = dict(
    type='RenderSupervision',
    field=dict(type='DensityField', source='density', features='logits', form='dvgo'),
    views=dict(type='MeasuredRays', min_depth=0.0, max_depth=52.0, inside=False),
    renderer=dict(
        type='MarchRenderer',
        form='dvgo',
        sampling='mip360',
        step=0.5,  # voxels
        radius=None,  # of the sphere that is not contracted, metres; None: one less than half the grid
        depth='z',
        depth_mode='range',
        align_corners=False,
        z_bound='grid',
        alpha_min=1e-7,
        transmittance_min=1e-3,
        weight_min=1e-7,
        distortion='width',
    ),
    target=dict(type='RayTarget', depth='z', labels=True),
    terms=dict(
        loss_ray_depth=dict(function='silog', view='ray', quantity='depth', weight=1.0, options=dict(balance=0.85)),
        loss_ray_sem=dict(
            function='cross_entropy',
            view='ray',
            quantity='features',
            weight=1.0,
            options=dict(class_weights=None, class_counts=occ3d_counts),
        ),
        loss_ray_entropy=dict(function='last_entropy', view='ray', weight=0.01),
        loss_ray_distortion=dict(function='distortion', view='ray', weight=0.01),
        # in the paper, not in the code
        loss_tv=dict(function='total_variation', view='ray', weight=0.0, options=dict(of='density')),
    ),
    weight=1.0,
)

# UniOcc: depth and classes alone, a tenth of everything beside voxel losses, all classes alike.
uniocc = dict(
    renderocc,
    terms=dict(
        loss_ray_depth=renderocc['terms']['loss_ray_depth'],
        loss_ray_sem=dict(renderocc['terms']['loss_ray_sem'], options=dict(class_weights=None, class_counts=None)),
    ),
    weight=0.1,
)

# Networks that predict class logits and no density: opacity is the probability of not being free.
logits_field = dict(type='DensityField', source='logits', features='logits', form='dvgo')
