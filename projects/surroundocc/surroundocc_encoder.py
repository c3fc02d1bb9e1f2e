"""From image features to volumes of several resolutions."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmdet3d.registry import MODELS
from mmengine.logging import print_log
from mmengine.model import BaseModule, ModuleList
from torch import Tensor, nn

from projects.occ.models.layers import CameraRebatch, project_points, recompute
from projects.occ.structures import OccBatch, VoxelGrid

from .surroundocc_layer import SurroundOccLayer
from .volumes import cell_centers, per_axis, to_volume, volume_cells

# Rows of the original's table of level embeddings, of which it reads the first one only: each encoder has one level.
LEVEL_EMBEDDINGS = 4


def of_level(option: Any, level: int) -> Any:
    """Resolves an option for one level: lists have one element per level, dicts are searched, all else is shared."""
    if isinstance(option, Mapping):
        return {key: of_level(value, level) for key, value in option.items()}
    return option[level] if isinstance(option, (list, tuple)) else option


def _check_levels(template: Mapping[str, Any], num_levels: int, name: str) -> None:
    """Raises ValueError if a list in ``template`` has not one element per level."""
    for key, value in template.items():
        if isinstance(value, Mapping):
            _check_levels(value, num_levels, f'{name}.{key}')
        elif isinstance(value, (list, tuple)) and len(value) != num_levels:
            raise ValueError(
                f'{name}.{key} must be one number or a list of {num_levels} (one for each of view_encoder.scales), got {value}'
            )


class VolumeEncoder(BaseModule):
    """Stack of layers with its cell centres (``transformer.<level>.encoder``).

    Args:
        centers: (Q, 3), cell centres, metres, z slowest and x fastest.
        num_layers: Number of layers.
        layer: Options of :class:`SurroundOccLayer`.
        with_cp: Recompute the layers in the backward pass instead of keeping their activations.
    """

    def __init__(self, centers: Tensor, num_layers: int, layer: Mapping[str, Any], with_cp: bool = False) -> None:
        super().__init__()
        self.with_cp = with_cp
        self.register_buffer('centers', centers, persistent=False)
        self.layers = ModuleList(SurroundOccLayer(**layer) for _ in range(num_layers))

    def forward(
        self, query: Tensor, tokens: Tensor, size: tuple[int, int], positions: Tensor, rebatch: CameraRebatch
    ) -> Tensor:
        """Runs the layers.

        Args:
            query: (B, Q, C).
            tokens: (B*N, h*w, C), image features.
            size: (h, w).
            positions: (B, N, Q, 2), where the cells appear in the padded images, [0, 1].
            rebatch: Which cells the cameras see.

        Returns:
            (B, Q, C).
        """
        positions = rebatch.gather_per_camera(positions)
        for layer in self.layers:
            args = (query, tokens, positions, size, rebatch)
            query = recompute(layer, *args) if self.with_cp else layer(*args)
        return query


class VolumeTransformer(BaseModule):
    """Encoder of one level with its camera and level embeddings (``transformer.<level>``).

    Args:
        embed_dims: Channels C.
        num_embeddings: Rows of the camera embeddings.
        encoder: Options of :class:`VolumeEncoder`.
    """

    def __init__(self, embed_dims: int, num_embeddings: int, encoder: Mapping[str, Any]) -> None:
        super().__init__()
        self.level_embeds = nn.Parameter(torch.randn(LEVEL_EMBEDDINGS, embed_dims))
        self.cams_embeds = nn.Parameter(torch.randn(num_embeddings, embed_dims))
        self.encoder = VolumeEncoder(**encoder)

    def init_weights(self) -> None:
        """Xavier for every matrix and kernel, N(0, 1) for the embeddings, then the rules of the attentions."""
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        nn.init.normal_(self.level_embeds)
        nn.init.normal_(self.cams_embeds)
        super().init_weights()

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs) -> None:
        key, rows = prefix + 'cams_embeds', len(self.cams_embeds)
        given = state_dict.get(key)
        if given is not None and given.dim() == 2 and len(given) > rows:
            # Single-camera models of the original code carry six rows, of which the first is the one in use.
            print_log(f'{key}: the first {rows} of {len(given)} cameras are taken from the checkpoint', logger='current')
            state_dict[key] = given[:rows]
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def forward(self, query: Tensor, feats: Tensor, positions: Tensor, rebatch: CameraRebatch) -> Tensor:
        """Encodes queries (B, Q, C) with features (B, N, C, h, w); for the other arguments see :class:`VolumeEncoder`."""
        embeddings = self.cams_embeds[: feats.shape[1], None] + self.level_embeds[0]
        tokens = (feats.flatten(3).transpose(2, 3) + embeddings).flatten(0, 1)
        return self.encoder(query, tokens, tuple(feats.shape[-2:]), positions, rebatch)


@MODELS.register_module()
class SurroundOccViewEncoder(BaseModule):
    """Turns every level of image features into a volume of its own.

    `SurroundOcc: Multi-Camera 3D Occupancy Prediction for Autonomous Driving <https://arxiv.org/abs/2303.09551>`_. The finest
    features fill the largest volume. Learned queries, one per cell, look at the images where their cell centre projects to, and
    at each other through 3D convolutions.

    The options of a level may be given once for all or as a list with one element per level, also inside ``cross_attn`` and
    ``ffn``.

    Args:
        grid: The voxel grid; the volumes have ``grid.shape / scale`` cells.
        scales: Voxels per cell, one number or one for each of x, y, z; fine to coarse.
        in_channels: Channels of the image features.
        embed_dims: Channels C of the volumes.
        num_layers: Layers of each encoder.
        num_cams: Cameras N.
        num_cam_embeds: Rows of the camera embeddings, by default N; more than N has no use but to count like the original,
            which keeps six for one camera.
        cross_attn: Options of :class:`VolumeCrossAttention`: ``num_heads=8, num_points=(2, 4, 8), dropout=0.1``.
        ffn: Options of mmcv's ``FFN``; by default a hidden width of 2C and dropout 0.1.
        num_convs: 3D convolutions of a layer.
        norm_cfg: Norm over the channels.
        conv_norm_cfg: Norm behind the 3D convolutions.
        see_padding: Whether a voxel that projects onto padding counts as seen. False is right; the authors' weights were
            trained with True (28 rows of 928). Images without padding give the same either way.
        with_cp: Recompute the layers in the backward pass: less memory, more time, same numbers.
        init_cfg: Extra initialisation, applied last.

    Raises:
        ValueError: If the lists have different lengths, or the numbers do not fit the grid or each other.
    """

    def __init__(
        self,
        grid: VoxelGrid | Mapping[str, Any],
        scales: Sequence[int | Sequence[int]] = (2, 4, 8),
        in_channels: int | Sequence[int] = 512,
        embed_dims: int | Sequence[int] = (128, 256, 512),
        num_layers: int | Sequence[int] = (1, 3, 6),
        num_cams: int = 6,
        num_cam_embeds: int | None = None,
        cross_attn: Mapping[str, Any] | None = None,
        ffn: Mapping[str, Any] | None = None,
        num_convs: int | Sequence[int] = 2,
        norm_cfg: Mapping[str, Any] | None = None,
        conv_norm_cfg: Mapping[str, Any] | None = None,
        see_padding: bool = False,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        grid = VoxelGrid.build(grid)
        self.num_cams, self.see_padding = num_cams, see_padding
        num_cam_embeds = num_cams if num_cam_embeds is None else num_cam_embeds
        if num_cam_embeds < num_cams:
            raise ValueError(f'view_encoder.num_cam_embeds must be at least num_cams={num_cams}, got {num_cam_embeds}')
        template = dict(
            in_channels=in_channels,
            embed_dims=embed_dims,
            num_layers=num_layers,
            num_convs=num_convs,
            cross_attn=dict(num_points=(2, 4, 8)) | dict(cross_attn or {}),
            ffn=dict(ffn_drop=0.1) | dict(ffn or {}),
        )
        _check_levels(template, len(scales), 'view_encoder')
        self.in_channels, self.cells = [], []
        self.transformer, self.volume_embedding, self.transfer_conv = ModuleList(), ModuleList(), ModuleList()
        for level, scale in enumerate(scales):
            cells = volume_cells(grid, per_axis(scale, 'view_encoder.scales'), 'view_encoder.scales')
            options = of_level(template, level)
            channels, dims = options['in_channels'], options['embed_dims']
            layer = dict(
                embed_dims=dims,
                cells=cells,
                cross_attn=options['cross_attn'],
                ffn=dict(feedforward_channels=2 * dims) | options['ffn'],
                num_convs=options['num_convs'],
                norm_cfg=norm_cfg or dict(type='LN'),
                conv_norm_cfg=conv_norm_cfg or dict(type='GN', num_groups=16),
            )
            centers = cell_centers(grid, cells)
            encoder = dict(centers=centers, num_layers=options['num_layers'], layer=layer, with_cp=with_cp)
            self.transformer.append(VolumeTransformer(dims, num_cam_embeds, encoder))
            self.volume_embedding.append(nn.Embedding(len(centers), dims))
            self.transfer_conv.append(nn.Sequential(nn.Conv2d(channels, dims, kernel_size=1), nn.ReLU(inplace=True)))
            self.in_channels.append(channels)
            self.cells.append(cells)

    def _check_features(self, img_feats: Sequence[Tensor]) -> None:
        if len(img_feats) != len(self.cells):
            raise ValueError(
                f'view_encoder has {len(self.cells)} volumes (model.view_encoder.scales) and needs as many feature levels, got '
                f'{len(img_feats)}; compare with model.img_neck.num_outs'
            )
        for feats, channels in zip(img_feats, self.in_channels):
            if feats.dim() != 5 or feats.shape[1:3] != (self.num_cams, channels):
                raise ValueError(
                    f'view_encoder expects image features (B, N, C, h, w) with N = {self.num_cams} cameras '
                    f'(model.view_encoder.num_cams) and C = {channels} (model.view_encoder.in_channels), '
                    f'got {tuple(feats.shape)}'
                )

    def forward(self, img_feats: Sequence[Tensor], batch: OccBatch) -> list[Tensor]:
        """Encodes.

        Args:
            img_feats: Levels fine to coarse, each (B, N, C, h, w).
            batch: The batch of the key frame: cameras, image sizes and images, whose size normalises positions.

        Returns:
            Volumes fine to coarse, each (B, C_l, X_l, Y_l, Z_l).

        Raises:
            ValueError: If the features do not have the shapes that the encoder was built for.
        """
        self._check_features(img_feats)
        batch_size = len(img_feats[0])
        ref2img, img_wh, input_wh = batch.cameras.ref2img, batch.image_sizes, batch.input_wh
        if self.see_padding:
            img_wh = img_wh.new_tensor(input_wh).expand_as(img_wh)
        projected = [project_points(transformer.encoder.centers, ref2img, img_wh, input_wh) for transformer in self.transformer]
        rebatches = CameraRebatch.of_levels([visible for _, visible in projected])
        volumes = []
        for level, feats in enumerate(img_feats):
            feats = self.transfer_conv[level](feats.flatten(0, 1)).unflatten(0, (batch_size, -1))
            query = self.volume_embedding[level].weight.expand(batch_size, -1, -1)
            query = self.transformer[level](query, feats, projected[level][0], rebatches[level])
            volumes.append(to_volume(query, self.cells[level]))
        return volumes
