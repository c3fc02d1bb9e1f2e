"""Which voxels count: the masks of labels and predictions, and the settings that choose among them."""

# Masks of a label file, as fields of a data sample: voxels seen by the LiDAR, and by a camera.
MASK_KEYS = ('mask_lidar', 'mask_camera')
# Setting of losses, metrics and pictures -> fields that must all be set for a voxel to count.
MASK_FIELDS: dict[str, tuple[str, ...]] = {
    'none': (),
    'camera': ('mask_camera',),
    'lidar': ('mask_lidar',),
    'both': ('mask_camera', 'mask_lidar'),
}
