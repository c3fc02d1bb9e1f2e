"""A small oblong model and random images, depth maps and cameras that differ from sample to sample."""

import numpy as np
import torch
from mmdet3d.registry import MODELS
from occ_batches import batch_of_samples
from symphonies_official_config import model_config_from_official

from projects.occ.structures import OccDataSample

IMAGE_WH = (64, 40)
CLASSES = 5


def official_config(**changes):
    """Settings of a small model with unequal sizes, in the option names of the original."""
    config = dict(
        embed_dims=16,
        num_classes=CLASSES,
        num_layers=3,
        view_scales=[4, 8, 16],
        scene_size=[16, 12, 16],
        volume_scale=2,
        downsample_z=2,
        image_shape=[40, 64],
        voxel_size=0.5,
        voxel_origin=[0.0, -3.0, -4.0],
        num_queries=6,
        frustum_size=4,
        encoder=dict(
            depth=18,
            base_channels=8,
            conv_dim=8,
            num_heads=2,
            feedforward=16,
            enc_layers=1,
            total_num_feature_levels=4,
            gn_groups=4,
        ),
        scene_pos=dict(num_embeds=[8, 6, 1], squeeze_dims=[2, 2, 1]),
    )
    config.update(changes)
    return config


def build_model(seed=0, **changes):
    """In evaluation mode, with no parameter at a start value that hides mistakes (zero offsets, equal weights)."""
    torch.manual_seed(seed)
    config = model_config_from_official(official_config(**changes))
    model = MODELS.build(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1 or 'sampling_offsets' in name or 'attention_weights' in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def build_batch(batch_size=1, seed=0):
    """A batch in which every sample has another camera and sees another number of cells."""
    generator = torch.Generator().manual_seed(seed)
    width, height = IMAGE_WH
    imgs = torch.randn(batch_size, 1, 3, height, width, generator=generator)
    depths = torch.rand(batch_size, 1, height, width, generator=generator) * 5 + 1
    samples = []
    for index in range(batch_size):
        depths[index, :, : 10 * index] = 0  # another number of pixels without depth
        turn = 0.1 * index
        rotation = np.array([[0, -1, 0], [0, 0, -1], [1, 0, 0]]) @ np.array(
            [[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]]
        )
        ref2cam = np.eye(4)
        ref2cam[:3] = np.c_[rotation, [0.1, -0.2, 0.3 - 0.2 * index]]
        cam2img = np.array([[40.0, 0, 31.3 + index], [0, 41, 19.6], [0, 0, 1]])
        padded = np.eye(4)
        padded[:3, :3] = cam2img
        label = torch.randint(0, CLASSES, (16, 12, 16), generator=generator, dtype=torch.uint8)
        label[index, :, :3] = 255
        sample = OccDataSample(gt_occ=label)
        sizes = np.float32([IMAGE_WH])
        cameras = dict(ref2cam=ref2cam, cam2img=cam2img, ref2img=padded @ ref2cam)
        sample.set_metainfo({key: np.float32(value)[None] for key, value in cameras.items()})
        sample.set_metainfo(dict(img_wh=sizes, ori_img_wh=sizes, token=f'frame{index}'))
        samples.append(sample)
    return batch_of_samples(imgs, samples, depths=depths)
