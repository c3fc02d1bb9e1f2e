"""GaussianOcc, stage 2, on nuScenes with OccNeRF's ray marching in the place of splatting (published: mIoU* 11.19).

The paper's table of renderers: probabilities along 424 samples a ray are added up until they reach 1. Rays that find nothing or
spread cost a little. Departures: those of the splatted config; features are looked up at every sample, there once for four of
them (``renderer.contracted.group=4``).
"""

_base_ = ['./gaussianocc_r101_8xb1-12e_occ3d-nus.py']

model = dict(
    aggregator=dict(
        field=dict(density='logit'),
        renderer=dict(
            _delete_=True,
            type='MarchRenderer',
            form='prob',
            sampling='contracted',
            distortion='width',
            contracted=dict(near=0.1, jitter=0.1, group=1, chunk=4096),
        ),
        terms=dict(
            loss_pseudo_sem=dict(weight=0.05),
            loss_opacity_entropy=dict(weight=0.0),
            loss_tv=dict(weight=0.0),
            loss_ray_entropy=dict(function='last_entropy', weight=0.01),
            loss_ray_distortion=dict(function='distortion', weight=0.01),
        ),
    )
)
