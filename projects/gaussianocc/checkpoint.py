"""Names of the weights in the authors' folders and here.

A published folder holds one file per network; ``tools/convert_checkpoint.py`` reads it as one set of weights, in which the
entries of ``encoder.pth`` begin with ``encoder.`` and so on (``FOLDER``). It finds this module by its place and needs
``SOURCES``, ``identify``, ``to_project``, ``to_official`` and ``adapt``; another family offers the same.
"""

import re
from collections.abc import Collection, Mapping

from torch import Tensor

from projects.occ.models.weight_names import ToProject, never_adapt, plain_key, rename_back, replace_prefix

SOURCES = dict(
    authors='release of the GaussianOcc authors, all networks',
    authors_pose='release of the GaussianOcc authors, pose network alone',
    project='weights of this code base',
)
# Files of a published folder, without their ending; the optimiser's state, adam.pth, is not read.
FOLDER = ('encoder', 'depth', 'pose_encoder', 'pose')
NUMBERS = ('encoder.height', 'encoder.width')  # entries of encoder.pth that are plain numbers
# Where a model that learns its motions keeps the network for them.
POSE_NETWORK = 'aggregator.target.poses.'
PARTS = dict(authors_pose=(POSE_NETWORK,))  # what a file of that source fills; nothing else of a model is missing then

# Original prefix -> ours; None: the entry has no counterpart here. The first prefix that fits counts.
_PREFIXES: tuple[tuple[str, str | None], ...] = (
    ('encoder.backbone.0.', 'img_backbone.conv1.'),
    ('encoder.backbone.1.', 'img_backbone.bn1.'),
    ('encoder.backbone.4.', 'img_backbone.layer1.'),
    ('encoder.backbone.5.', 'img_backbone.layer2.'),
    ('encoder.layer3.', 'img_backbone.layer3.'),
    ('encoder.upsampling_layer.conv.', 'img_neck.merge.'),
    ('encoder.Upsampling_4.conv.', 'img_neck.refine.'),
    ('encoder.depth_layer.', 'img_neck.out_conv.'),
    ('depth._3DCNN.classif3.', None),
    ('depth._3DCNN.classif_flow.', None),
    ('depth._3DCNN.', 'occ_head.network.'),
    ('pose_encoder.encoder.fc.', None),
    ('pose_encoder.encoder.', POSE_NETWORK + 'backbone.'),
    ('pose.net.', POSE_NETWORK + 'net.'),
    ('pose.refine_mlp.', None),
    ('pose.finial_conv.', None),
)
# Constants that follow from the grid.
_CONSTANT = re.compile(r'depth\.(xyz_min|xyz_max|Zval|scene_centroid|\w+\.posfreq)')


def identify(keys: Collection[str]) -> str | None:
    """Says which code base wrote these keys: a key of ``SOURCES``, or None if they are not weights of this model."""
    keys = [plain_key(key) for key in keys]
    if any(key.startswith(('occ_head.network.dres0.', POSE_NETWORK)) for key in keys):
        return 'project'
    if any(key.startswith('depth._3DCNN.dres0.') for key in keys):
        return 'authors'
    return 'authors_pose' if any(key.startswith('pose.net.') for key in keys) else None


def _rename(key: str, source: str) -> str | None:
    key = plain_key(key)
    if source == 'project':
        return key
    if key in NUMBERS or _CONSTANT.fullmatch(key):
        return None
    return replace_prefix(key, _PREFIXES)


to_project = ToProject(
    identify,
    _rename,
    f'these are no weights of GaussianOcc; give the published folder with {", ".join(f"{name}.pth" for name in FOLDER)}, not '
    'one of its files',
)


def to_official(
    state_dict: Mapping[str, Tensor], source: str = 'authors', dropped: Mapping[str, Tensor] | None = None
) -> tuple[dict[str, Tensor], dict[str, str | None], list[str]]:
    """Original names of our weights.

    Args:
        state_dict: Our weights.
        source: Code base to write for, a key of ``SOURCES``; all have the same names.
        dropped: Original entries that the conversion to our names left out or adapted, to be put back.

    Returns:
        The weights under their original names; the original name of every known key, None where there is no counterpart; the
        unknown keys.
    """
    places = [(ours, theirs) for theirs, ours in _PREFIXES if ours is not None]
    official, renamed, unknown = rename_back(state_dict, lambda key: replace_prefix(key, places))
    return {**official, **(dropped or {})}, renamed, unknown


adapt = never_adapt
