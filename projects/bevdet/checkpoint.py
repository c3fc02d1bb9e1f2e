"""Names of the weights in the original code bases and here; ``tools/convert_checkpoint.py`` uses this module."""

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from projects.occ.models.weight_names import ToProject, never_adapt, plain_key, rename_back

SOURCES = dict(
    bevdet='release of the BEVDet authors (bevdet-occ), or the baseline of RenderOcc',
    renderocc='release of RenderOcc',
    flashocc='release of FlashOCC (bevdet-occ)',
    image_network='BEVDet detection network, whose backbone, neck and depth network are taken',
    project='weights of this code base',
)
IMAGE_PARTS = ('img_backbone.', 'img_neck.', 'view_encoder.depth_net.')

_LIFT, _OURS = 'img_view_transformer.depth_net.', 'view_encoder.depth_net.'
_ASPP = f'{_LIFT}depth_conv.3.'
# Original prefix and ours, one to one; the longest one counts.
_IMAGE_PLACES = {
    'img_backbone.': 'img_backbone.',
    'img_neck.': 'img_neck.',
    # of the network without stereo the depth network is one convolution
    f'{_LIFT}weight': f'{_OURS}conv.weight',
    f'{_LIFT}bias': f'{_OURS}conv.bias',
    f'{_LIFT}reduce_conv.': f'{_OURS}reduce_conv.',
    f'{_LIFT}bn.': f'{_OURS}vector_norm.',
    f'{_LIFT}context_conv.': f'{_OURS}context_conv.',
    **{f'{_LIFT}{part}_mlp.fc{i + 1}.': f'{_OURS}{part}_gate.mlp.{2 * i}.' for part in ('context', 'depth') for i in range(2)},
    **{f'{_LIFT}{part}_se.conv_reduce.': f'{_OURS}{part}_gate.gate.0.' for part in ('context', 'depth')},
    **{f'{_LIFT}{part}_se.conv_expand.': f'{_OURS}{part}_gate.gate.2.' for part in ('context', 'depth')},
    f'{_LIFT}cost_volumn_net.': f'{_OURS}cost_convs.',
    **{f'{_LIFT}depth_conv.{i}.': f'{_OURS}blocks.{i}.' for i in range(3)},
    **{f'{_ASPP}aspp{i + 1}.atrous_conv.': f'{_OURS}aspp.convs.{i}.0.' for i in range(4)},
    **{f'{_ASPP}aspp{i + 1}.bn.': f'{_OURS}aspp.convs.{i}.1.' for i in range(4)},
    f'{_ASPP}global_avg_pool.': f'{_OURS}aspp.convs.4.',
    f'{_ASPP}conv1.': f'{_OURS}aspp.project.0.',
    f'{_ASPP}bn1.': f'{_OURS}aspp.project.1.',
    f'{_LIFT}depth_conv.4.': f'{_OURS}depth_conv.',
}
_VOXEL_PLACES = {
    'pre_process_net.': 'view_encoder.frame_net.',
    'img_bev_encoder_backbone.': 'view_encoder.voxel_encoder.',
    'img_bev_encoder_neck.': 'view_encoder.voxel_neck.',
}
_HEAD_PLACES = {
    'final_conv.': 'occ_head.final_conv.',
    'predicter.': 'occ_head.predictor.',
    'density_mlp.': 'occ_head.density_mlp.',
    'semantic_mlp.': 'occ_head.semantic_mlp.',
}
_PLACES = dict(
    bevdet=_IMAGE_PLACES | _VOXEL_PLACES | _HEAD_PLACES,
    renderocc=_IMAGE_PLACES | _VOXEL_PLACES | _HEAD_PLACES,
    flashocc=_IMAGE_PLACES | _VOXEL_PLACES | {f'occ_head.{theirs}': ours for theirs, ours in _HEAD_PLACES.items()},
    image_network=_IMAGE_PLACES,
)
# Of RenderOcc: class weights of its loss and the geometry of its rays, both set by the config here.
_CONSTANTS = ('semantic_loss.', 'nerf_head.')
# Of a detection network: what stands behind the lifted features there.
_DETECTION = (*_VOXEL_PLACES, 'pts_bbox_head.')
# RenderOcc on Occ3D-nuScenes: voxels of the 17 occupied classes and the free one, in the order of their ids.
_VOXEL_COUNTS = (
    *(1163161, 2309034, 188743, 2997643, 20317180, 852476, 243808, 2457947, 497017),
    *(2731022, 7224789, 214411435, 5565043, 63191967, 76098082, 128860031, 141625221, 2307405309),
)


def identify(keys: Collection[str]) -> str | None:
    """Says which code base wrote these keys: a key of ``SOURCES``, or None if they are not weights of this model."""
    keys = [plain_key(key) for key in keys]

    def has(*prefixes: str) -> bool:
        return any(key.startswith(prefixes) for key in keys)

    if has('view_encoder.voxel_encoder.'):
        return 'project'
    if not has(_LIFT):
        return None
    if has('density_mlp.'):
        return 'renderocc'
    if has('predicter.'):
        return 'bevdet'
    if has('occ_head.predicter.'):
        return 'flashocc'
    return 'image_network' if all(key.startswith(('img_', *_DETECTION)) for key in keys) else None


def _rename(key: str, source: str) -> str | None:
    """Our name of an entry, or None if it has no counterpart.

    Raises:
        KeyError: If the name is unknown.
    """
    key = plain_key(key)
    if source == 'project':
        return key
    if key.startswith(_CONSTANTS if source == 'renderocc' else _DETECTION if source == 'image_network' else ()):
        return None
    return _replace(key, _PLACES[source])


def _replace(key: str, places: Mapping[str, str]) -> str:
    prefix = max((prefix for prefix in places if key.startswith(prefix)), key=len, default=None)
    if prefix is None:
        raise KeyError(key)
    return places[prefix] + key.removeprefix(prefix)


to_project = ToProject(identify, _rename, 'these are no weights of the BEVDet series')


def to_official(
    state_dict: Mapping[str, Tensor], source: str = 'project', dropped: Mapping[str, Tensor] | None = None
) -> tuple[dict[str, Tensor], dict[str, str | None], list[str]]:
    """Original names of our weights.

    Args:
        state_dict: Our weights.
        source: Code base to write for, a key of ``SOURCES``; weights that come from here are written as RenderOcc's if they
            have a density, else as those of the BEVDet authors.
        dropped: Original entries that the conversion to our names left out, to be put back. Without them the constants that
            RenderOcc stores are those of its released config, for Occ3D-nuScenes.

    Returns:
        The weights under their original names; the original name of every known key, None where there is no counterpart; the
        unknown keys.
    """
    if source == 'project':
        source = 'renderocc' if any(key.startswith('occ_head.density_mlp.') for key in state_dict) else 'bevdet'
    places = {ours: theirs for theirs, ours in _PLACES[source].items()}

    def rename(key: str) -> str | None:
        return None if key.startswith('aggregator.') else _replace(key, places)  # training-time part

    official, renamed, unknown = rename_back(state_dict, rename)
    if dropped is None and source == 'renderocc':
        dropped = _renderocc_constants(len(official.get('semantic_mlp.2.bias', ())))
    return official | dict(dropped or {}), renamed, unknown


def _renderocc_constants(num_classes: int) -> dict[str, Tensor]:
    """Constants that strict loading in RenderOcc asks for; nothing for other benchmarks than Occ3D-nuScenes."""
    counts = torch.tensor(_VOXEL_COUNTS, dtype=torch.float64)
    if num_classes != len(counts) - 1:
        return {}
    radius, limit = 39.0, 40.0 / 39.0
    upper = torch.tensor([limit, limit, 6.4 / 80])
    return {
        'semantic_loss.weight': (1 / (counts + 0.001).log()).float()[:num_classes],
        'nerf_head.scene_center': torch.tensor([0.0, 0.0, 2.2]),
        'nerf_head.scene_radius': torch.full((3,), radius),
        'nerf_head.xyz_min': -upper,
        'nerf_head.xyz_max': upper,
        'nerf_head.act_shift': torch.tensor([1 / (1 - 1e-6) - 1]).double().log().float(),
    }


adapt = never_adapt
