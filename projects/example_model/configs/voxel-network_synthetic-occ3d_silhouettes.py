"""The network of this folder with the supervision of silhouettes.py beside its voxel loss."""

_base_ = ['./voxel-network_synthetic-occ3d.py']

custom_imports = dict(
    imports=[*_base_.custom_imports.imports, 'projects.example_model.silhouettes'], allow_failed_imports=False
)
model = dict(
    aggregator=dict(
        type='RenderSupervision',
        field=dict(type='ClassLogitsField'),
        views=dict(type='SampledCameras', sampler=dict(type='ElevatedCameras', num_cameras=2), bev=False),
        renderer=dict(type='SplatRenderer'),
        target=dict(type='SilhouetteTarget'),
        terms=dict(loss_silhouette=dict(function='silhouette_bce', quantity='alpha', weight=1.0)),
    )
)
