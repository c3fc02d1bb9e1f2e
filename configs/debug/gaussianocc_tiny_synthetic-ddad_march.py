"""A small stage 2 of GaussianOcc on generated drives with OccNeRF's ray marching; trains on a CPU.

python tools/create_data.py synthetic --format ddad --image-size 192x120 --frames 8 --out data/synthetic_ddad
"""

_base_ = ['./gaussianocc_tiny_synthetic-ddad.py']

model = dict(
    aggregator=dict(
        field=dict(density='logit'),
        renderer=dict(
            _delete_=True,
            type='MarchRenderer',
            form='prob',
            sampling='contracted',
            distortion='width',
            contracted=dict(group=1, chunk=4096),
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
