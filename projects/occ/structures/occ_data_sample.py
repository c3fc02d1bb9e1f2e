"""The annotation, the prediction and the names of one key frame, for metrics and pictures."""

from mmengine.structures import BaseDataElement


class OccDataSample(BaseDataElement):
    """Data sample of the occupancy task.

    Data fields (present when known):
        gt_occ (Tensor): (X, Y, Z) uint8 class ids, ``grid.ignore_index`` where unlabelled.
        mask_camera (Tensor): (X, Y, Z) bool, voxel seen by a camera.
        mask_lidar (Tensor): (X, Y, Z) bool, voxel seen by the LiDAR.
        pred_occ (Tensor): (X, Y, Z) uint8 predicted class ids.
        pred_logits (Tensor): (C, X, Y, Z) predicted logits, if the model has ``keep_logits``.
        pred_opacity (Tensor): (X, Y, Z) in [0, 1], predicted opacity of voxels that a ray crosses, likewise.
        pred_contracted_logits (Tensor): (C, X', Y', Z') logits on a contracted grid, likewise.

    Networks and losses read none of it: their input is an ``OccBatch``.

    Meta information (numpy float32 unless said; N cameras of the key frame in the order of ``cam_names``):
        ref2img: (N, 4, 4), reference frame (metres) -> (u*d, v*d, d, 1), u, v in pixels of the *network* image, after all
            augmentation.
        img_wh: (N, 2), width and height of the network images before padding, pixels.
        ref2cam: (N, 4, 4), reference frame -> camera (x right, y down, z forward), metres.
        cam2img: (N, 3, 3), intrinsics of the *original* image, pixels, pixel centres at +0.5.
        ori_img_wh: (N, 2), width and height of the original images, pixels.
        cam_names (list[str]), img_paths (list[str]), token (str), scene_name (str), frame_idx (int), lidar_path (str),
        lidar2ego (4, 4), ego2global (4, 4) float64.
    """
