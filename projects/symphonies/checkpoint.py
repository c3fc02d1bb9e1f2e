"""Names of the weights in the original code base and here; ``tools/convert_checkpoint.py`` uses this module."""

import math
import re
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from projects.occ.models.weight_names import ToProject, never_adapt, plain_key, rename_back, replace_prefix

SOURCES = dict(
    lightning='release of the Symphonies authors (PyTorch Lightning)',
    authors='weights of the Symphonies network alone',
    image_network='MaskDINO (ResNet-50), the pretrained image network',
    project='weights of this code base',
)
IMAGE_PARTS = ('img_backbone.', 'img_neck.')

_PREFIXES = dict(lightning='model.', authors='')
_IMAGE = 'encoder.model.'  # what the file of MaskDINO itself leaves out
_DECODER = f'{_IMAGE}panoptic_head.pixel_decoder.'
_EMPTY_WEIGHT = f'{_IMAGE}panoptic_head.criterion.empty_weight'
_MARK = 'scene_embed.weight'
# Original prefix and ours, one to one.
_PLACES = (
    (f'{_IMAGE}backbone.', 'img_backbone.'),
    (f'{_DECODER}transformer.level_embed', 'img_neck.level_embed'),
    (f'{_DECODER}transformer.encoder.', 'img_neck.encoder.'),
    *((f'{_DECODER}{part}.', f'img_neck.{part}.') for part in ('input_proj', 'mask_features', 'adapter_1', 'layer_1')),
    *((f'encoder.{part}.', f'view_encoder.{part}.') for part in ('query_embed', 'pts_embed', 'out_projs')),
    ('decoder.voxel_proposal.attn.', 'view_encoder.voxel_proposal.'),
    *((f'decoder.{part}.', f'view_encoder.{part}.') for part in ('scene_embed', 'scene_pos', 'aspp', 'layers')),
    ('decoder.cls_head.0.', 'occ_head.up_z.'),
    ('decoder.cls_head.1.up_bn.', 'occ_head.up.'),
    ('decoder.cls_head.2.', 'occ_head.classifier.'),
)
# Computed from grid and image here; weights of the transformer decoder of MaskDINO; a constant of its loss.
_DROPPED = re.compile(r'decoder\.(image|voxel)_grid|encoder\.model\.panoptic_head\.(predictor|criterion)\..+')
_IMAGE_SIZES = {19: (376, 1408), 20: (370, 1220)}  # (H, W) of SSCBench-KITTI-360 and SemanticKITTI by number of classes
_COCO_CLASSES = 133
_SQUEEZE = (2, 2, 1)


def _to_our_layer(name: str) -> str:
    """Spells the parts of a decoder layer as here: without a typing error and a list of one."""
    name = name.replace('query_image_cross_defrom_attn', 'query_image_cross_deform_attn')
    return re.sub(r'(scene_self_deform_attn|query_scene_cross_deform_attn)\.attn\.attns\.0\.', r'\1.attn.', name)


def _to_their_layer(name: str) -> str:
    name = name.replace('query_image_cross_deform_attn', 'query_image_cross_defrom_attn')
    return re.sub(r'(scene_self_deform_attn|query_scene_cross_deform_attn)\.attn\.', r'\1.attn.attns.0.', name)


def identify(keys: Collection[str]) -> str | None:
    """Says which code base wrote these keys: a key of ``SOURCES``, or None if they are not weights of this model."""
    keys = {plain_key(key) for key in keys}
    if 'view_encoder.' + _MARK in keys:
        return 'project'
    for source, prefix in _PREFIXES.items():
        if f'{prefix}decoder.{_MARK}' in keys:
            return source
    if all(any(key.startswith(part) for key in keys) for part in ('backbone.', 'panoptic_head.pixel_decoder.')):
        return 'image_network' if all(key.startswith(('backbone.', 'panoptic_head.')) for key in keys) else None
    return None


def _rename(key: str, source: str) -> str | None:
    """Our name of an entry, or None if it has no counterpart.

    Raises:
        KeyError: If the name is unknown.
    """
    name = plain_key(key)
    if source == 'project':
        return name
    if source == 'image_network':
        name = _IMAGE + name
    else:
        if not name.startswith(_PREFIXES[source]):
            raise KeyError(key)
        name = name.removeprefix(_PREFIXES[source])
    if _DROPPED.fullmatch(name):
        return None
    return replace_prefix(_to_our_layer(name), _PLACES)


to_project = ToProject(identify, _rename, 'these are no weights of Symphonies and not those of MaskDINO, its image network')


def to_official(
    state_dict: Mapping[str, Tensor], source: str = 'lightning', dropped: Mapping[str, Tensor] | None = None
) -> tuple[dict[str, Tensor], dict[str, str | None], list[str]]:
    """Original names of our weights.

    Args:
        state_dict: Our weights.
        source: Code base to write for, a key of ``SOURCES``; weights that come from here are written as the authors' release.
        dropped: Original entries that the conversion to our names left out, to be put back. Without them the buffers that the
            original stores are computed; that of the image needs to know its size, which follows from the number of classes
            for SSCBench-KITTI-360 and SemanticKITTI, and is left out otherwise.

    Returns:
        The weights under their original names; the original name of every known key, None where there is no counterpart; the
        unknown keys.
    """
    prefix = _PREFIXES.get(source, _PREFIXES['lightning'])
    places = [(ours, theirs) for theirs, ours in _PLACES]

    def rename(key: str) -> str | None:
        if key.startswith('aggregator.'):  # training-time part
            return None
        name = replace_prefix(_to_their_layer(key), places)
        return name.removeprefix(_IMAGE) if source == 'image_network' else prefix + name

    official, renamed, unknown = rename_back(state_dict, rename)
    if dropped is None and source != 'image_network':
        dropped = {prefix + name: value for name, value in _buffers(state_dict).items()}
    return official | dict(dropped or {}), renamed, unknown


def _buffers(ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Constants that strict loading in the original asks for."""
    buffers = {_EMPTY_WEIGHT: torch.cat((torch.ones(_COCO_CLASSES), torch.tensor([0.1])))}
    tables = [ours.get(f'view_encoder.scene_pos.embeds.{axis}.weight') for axis in range(3)]
    if all(table is not None for table in tables):
        base = [len(table) // squeeze for table, squeeze in zip(tables, _SQUEEZE)]
        cells = (base[0], base[1], base[2] * math.prod(_SQUEEZE))
        scene = ours.get(f'view_encoder.{_MARK}')
        if scene is not None and len(scene) == math.prod(cells):  # the original knows these sub-cells only
            axes = [torch.arange(n) / max(n - 1, 1) for n in cells]
            buffers['decoder.voxel_grid'] = torch.stack(torch.meshgrid(*axes, indexing='ij'))
    classifier = ours.get('occ_head.classifier.bias')
    if classifier is not None and len(classifier) in _IMAGE_SIZES:
        height, width = _IMAGE_SIZES[len(classifier)]
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing='ij')
        buffers['decoder.image_grid'] = torch.stack((columns, rows)).float().unsqueeze(0)
    return buffers


adapt = never_adapt
