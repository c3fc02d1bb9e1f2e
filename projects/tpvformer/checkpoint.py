"""Names of the weights in the original code bases and here.

``tools/convert_checkpoint.py`` finds this module by its place and needs ``SOURCES``, ``identify``,
``to_project``, ``to_official`` and ``adapt``; another family offers the same.
"""

import re
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from projects.occ.models.weight_names import ToProject, is_image_network, plain_key, rename_back, replace_prefix

SOURCES = dict(
    gaussrender='GaussRender release',
    authors='release of the TPVFormer authors (tpvformer04)',
    authors_old='first release of the TPVFormer authors',
    image_network='image network alone, for instance FCOS3D R101-DCN',
    project='weights of this code base',
)

# Original prefix -> ours; None: the entry has no counterpart here. The first prefix that fits counts.
_IMAGE = (('img_backbone.', 'img_backbone.'), ('img_neck.', 'img_neck.'))
_PREFIXES: dict[str, tuple[tuple[str, str | None], ...]] = dict(
    gaussrender=(
        *_IMAGE,
        ('head.', 'view_encoder.'),
        ('aggregator.decoder.', 'occ_head.decoder.'),
        ('aggregator.classifier.', 'occ_head.classifier.'),
        ('aggregator.renderer_prep.decoder.', 'aggregator.gaussians.'),
        # The background colour follows from the grid and is no weight here; the original stores it twice.
        ('aggregator.renderer.bg_color', None),
        ('renderer.bg_color', None),
    ),
    authors=(
        *_IMAGE,
        ('tpv_head.', 'view_encoder.'),
        ('tpv_aggregator.decoder.', 'occ_head.decoder.'),
        ('tpv_aggregator.classifier.', 'occ_head.classifier.'),
    ),
    # FCOS3D has a fifth output level, which nothing here uses.
    image_network=(
        ('img_neck.fpn_convs.4.', None),
        *_IMAGE,
        ('neck.fpn_convs.4.', None),
        ('backbone.', 'img_backbone.'),
        ('neck.', 'img_neck.'),
    ),
)
_IMAGE_KEY = re.compile(r'(?:img_)?(backbone|neck)\.')
# Detection branches of a pretrained image network, but not the heads of surround-view transformers.
_DETECTION_BRANCH = re.compile(r'\w*bbox_head\.(?!transformer|transfer_conv|deblocks|occ\.|encoder|\w*embedding)')
_NESTED_ATTENTION = re.compile(r'layers\.\d+\.attentions\.0\.value_proj\.\d')
_RECOMPUTED = re.compile(r'view_encoder\.(tpv_mask_hw|encoder\.ref_[23]d_(hw|zh|wz))')
# Index of the empty class among 17 (SurroundOcc), 18 (Occ3D) and 19 (SSCBench-KITTI360) classes, and the width of bg_color.
_EMPTY_CLASS = {17: 0, 18: 17, 19: 0}
_RENDER_CHANNELS = 19


def identify(keys: Collection[str]) -> str | None:
    """Says which code base wrote these keys: a key of ``SOURCES``, or None if they are not weights of this model.

    Raises:
        ValueError: If they belong to a relative of this model that has other attention layers.
    """
    keys = [plain_key(key) for key in keys]
    if any(_NESTED_ATTENTION.search(key) for key in keys):
        raise ValueError(
            'this is the TPVFormer variant with attention between the planes (tpvformer10, mmdetection3d projects/TPVFormer), '
            'whose layers do not fit; convert weights of the occupancy variant (tpvformer04 or GaussRender)'
        )
    marks = dict(
        gaussrender=('head.tpv_embedding_hw.',),
        authors=('tpv_head.tpv_embedding_hw.',),
        authors_old=('pts_bbox_head.tpv_embedding_hw.', 'pts_bbox_head.bev_embedding_hw.'),
        project=('view_encoder.tpv_embedding_hw.',),
    )
    for source, prefixes in marks.items():
        if any(key.startswith(prefixes) for key in keys):
            return source
    return 'image_network' if is_image_network(keys, _IMAGE_KEY, _DETECTION_BRANCH) else None


def _rename(key: str, source: str) -> str | None:
    key = plain_key(key)
    if source == 'project':
        return key
    if source == 'authors_old':
        key = key.replace('pts_bbox_head', 'tpv_head').replace('transformer.', '', 1)
        key = key.replace('fusion_head', 'tpv_aggregator').replace('bev', 'tpv')
        source = 'authors'
    if source == 'image_network' and _DETECTION_BRANCH.match(key):
        return None
    # mmcv 1 called the offset branch of a deformable convolution by another name
    return replace_prefix(key.replace('conv2_offset.', 'conv2.conv_offset.'), _PREFIXES[source])


to_project = ToProject(identify, _rename, 'these are no weights of TPVFormer and not those of an image network alone')


def to_official(
    state_dict: Mapping[str, Tensor], source: str = 'gaussrender', dropped: Mapping[str, Tensor] | None = None
) -> tuple[dict[str, Tensor], dict[str, str | None], list[str]]:
    """Original names of our weights.

    Args:
        state_dict: Our weights.
        source: Code base to write for, a key of ``SOURCES``; the authors' first release is written in their later names, and
            weights that come from here in GaussRender's.
        dropped: Original entries that the conversion to our names left out or adapted, to be put back.

    Returns:
        The weights under their original names; the original name of every known key, None where there is no counterpart; the
        unknown keys.
    """
    source = 'gaussrender' if source == 'project' else source.removesuffix('_old')
    places = [(ours, theirs) for theirs, ours in _PREFIXES[source] if ours is not None]
    official, renamed, unknown = rename_back(state_dict, lambda key: replace_prefix(key, places))
    if dropped:
        official.update(dropped)
    elif source == 'gaussrender' and any(key.startswith('aggregator.renderer_prep.') for key in official):
        official.update(_background(len(official['aggregator.classifier.bias'])))
    return official, renamed, unknown


def _background(num_classes: int) -> dict[str, Tensor]:
    """The background colour under the two names that strict loading in the original needs; nothing for other benchmarks."""
    if num_classes not in _EMPTY_CLASS:
        return {}
    color = torch.zeros(_RENDER_CHANNELS)
    color[_EMPTY_CLASS[num_classes]] = 1.0
    return {'aggregator.renderer.bg_color': color, 'renderer.bg_color': color.clone()}


def adapt(key: str, given: Tensor, own: Tensor) -> Tensor | None:
    """Fits an entry of another shape to a model, where that is right.

    Args:
        key: Our name.
        given: The entry of the file.
        own: The entry of the freshly built model.

    Returns:
        The model's own reference points, which it computes for its own grid; the first rows of camera embeddings, because
        single-camera models of the original carry six rows of which the first is in use; otherwise None.
    """
    if _RECOMPUTED.fullmatch(key):
        return own
    if key == 'view_encoder.cams_embeds' and given.shape[1:] == own.shape[1:] and len(given) > len(own):
        return given[: len(own)].clone()
    return None
