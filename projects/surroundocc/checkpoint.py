"""Names of the weights in the original code bases and here; ``tools/convert_checkpoint.py`` uses this module."""

import re
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from projects.occ.models.weight_names import ToProject, is_image_network, plain_key, rename_back

SOURCES = dict(
    authors='release of the SurroundOcc authors',
    gaussrender="GaussRender's variant",
    image_network='image network alone, for instance FCOS3D R101-DCN',
    project='weights of this code base',
)
# An image network pretrained for detection has a neck of another width.
IMAGE_PARTS = ('img_backbone.',)

_HEADS = dict(authors='pts_bbox_head.', gaussrender='head.')
_MARK = 'volume_embedding.0.weight'
# Parts of the original's head and the module here that holds them.
_PLACES = dict(
    transformer='view_encoder.',
    volume_embedding='view_encoder.',
    transfer_conv='view_encoder.',
    deblocks='occ_head.',
    occ='occ_head.',
)
_UNUSED = re.compile(r'transformer\.\d+\.reference_points\.(weight|bias)')
# The checkpoints of this model were not published, so only the last part of these names is known.
_GAUSSIAN_DECODER = re.compile(r'(?:head|aggregator)\.(?:\w+\.)*?(mlp_coarse\.\d+\.(?:weight|bias))')
_OUR_DECODER, _THEIR_DECODER = 'aggregator.gaussians.', 'head.renderer_prep.decoder.'
_BACKGROUND = re.compile(r'(?:\w+\.)*renderer\.bg_color')
_IMAGE_KEY = re.compile(r'(?:img_)?(backbone|neck)\.')
_DETECTION_BRANCH = re.compile(r'\w*bbox_head\.(?:cls|reg|conv|scales)\w*\.')
_CAMERA_TABLE = re.compile(r'view_encoder\.transformer\.\d+\.cams_embeds')


def _plain(key: str) -> str:
    """A key without the prefix of data-parallel wrappers, with today's name of the offsets of a deformable convolution."""
    return plain_key(key).replace('conv2_offset.', 'conv2.conv_offset.')


def identify(keys: Collection[str]) -> str | None:
    """Says which code base wrote these keys: a key of ``SOURCES``, or None if they are not weights of this model."""
    keys = {_plain(key) for key in keys}
    if 'view_encoder.' + _MARK in keys:
        return 'project'
    for source, prefix in _HEADS.items():
        if prefix + _MARK in keys:
            return source
    return 'image_network' if is_image_network(keys, _IMAGE_KEY, _DETECTION_BRANCH) else None


def _rename(key: str, source: str) -> str | None:
    """Our name of an entry, or None if it has no counterpart.

    Raises:
        KeyError: If the name is unknown.
    """
    key = _plain(key)
    if source == 'project':
        return key
    image = _IMAGE_KEY.match(key)
    if source == 'image_network':
        return f'img_backbone.{key[image.end() :]}' if image and image[1] == 'backbone' else None
    if image and key.startswith('img_'):
        return key
    if key.startswith(_HEADS[source]):
        name = key.removeprefix(_HEADS[source])
        if _UNUSED.fullmatch(name):
            return None
        place = _PLACES.get(name.split('.')[0])
        if place is not None:
            return place + name
    if source == 'gaussrender':
        decoder = _GAUSSIAN_DECODER.fullmatch(key)
        if decoder:
            return _OUR_DECODER + decoder[1]
        if _BACKGROUND.fullmatch(key):
            return None
    raise KeyError(key)


to_project = ToProject(identify, _rename, 'these are no weights of SurroundOcc and not those of an image network alone')


def to_official(
    state_dict: Mapping[str, Tensor], source: str = 'authors', dropped: Mapping[str, Tensor] | None = None
) -> tuple[dict[str, Tensor], dict[str, str | None], list[str]]:
    """Original names of our weights.

    Args:
        state_dict: Our weights.
        source: Code base to write for, a key of ``SOURCES``; weights that come from here are written for the authors' code.
        dropped: Original entries that the conversion to our names left out or adapted, to be put back.

    Returns:
        The weights under their original names; the original name of every known key, None where there is no counterpart; the
        unknown keys.
    """
    head = _HEADS.get(source, _HEADS['authors'])

    def rename(key: str) -> str | None:
        place, _, name = key.partition('.')
        if place in ('img_backbone', 'img_neck'):
            return key
        if _PLACES.get(name.split('.')[0]) == place + '.':
            return head + name
        if place == 'aggregator':  # training-time part, which only GaussRender has
            is_decoder = source == 'gaussrender' and key.startswith(_OUR_DECODER)
            return _THEIR_DECODER + key.removeprefix(_OUR_DECODER) if is_decoder else None
        raise KeyError(key)

    official, renamed, unknown = rename_back(state_dict, rename)
    return official | dict(dropped or _unused_layers(official)), renamed, unknown


def _unused_layers(official: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Layers that the original has but never runs, as zeros: strict loading there asks for them."""
    layers = {}
    for key, table in official.items():
        if key.endswith('.level_embeds'):
            prefix = key.removesuffix('level_embeds') + 'reference_points.'
            layers[prefix + 'weight'] = torch.zeros(3, table.shape[1])
            layers[prefix + 'bias'] = torch.zeros(3)
    return layers


def adapt(key: str, given: Tensor, own: Tensor) -> Tensor | None:
    """Fits an entry of another shape to a model, where that is right.

    Args:
        key: Our name.
        given: The entry of the file.
        own: The entry of the freshly built model.

    Returns:
        The first rows of camera embeddings, because single-camera models of the original carry six rows of which the first is
        in use; otherwise None.
    """
    if _CAMERA_TABLE.fullmatch(key) and given.shape[1:] == own.shape[1:] and len(given) > len(own):
        return given[: len(own)].clone()
    return None
