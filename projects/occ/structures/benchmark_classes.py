"""Semantic classes of the benchmarks in the order of their ids, with the colours published with them (RGB).

nuScenes: ids 1..16 of Occ3D and SurroundOcc (colours of TPVFormer, SurroundOcc and GaussRender). KITTI-360: ids 1..18 of
SSCBench. Free space, "others" of Occ3D and ignored voxels are not among them.
"""

Color = tuple[int, int, int]

NUSCENES_COLORS: dict[str, Color] = {
    'barrier': (255, 120, 50),
    'bicycle': (255, 192, 203),
    'bus': (255, 255, 0),
    'car': (0, 150, 245),
    'construction_vehicle': (0, 255, 255),
    'motorcycle': (200, 180, 0),
    'pedestrian': (255, 0, 0),
    'traffic_cone': (255, 240, 150),
    'trailer': (135, 60, 0),
    'truck': (160, 32, 240),
    'driveable_surface': (255, 0, 255),
    'other_flat': (139, 137, 137),
    'sidewalk': (75, 0, 75),
    'terrain': (150, 240, 80),
    'manmade': (230, 230, 250),
    'vegetation': (0, 175, 0),
}
KITTI360_COLORS: dict[str, Color] = {
    'car': (100, 150, 245),
    'bicycle': (100, 230, 245),
    'motorcycle': (30, 60, 150),
    'truck': (80, 30, 180),
    'other-vehicle': (0, 0, 255),
    'person': (255, 30, 30),
    'road': (255, 0, 255),
    'parking': (255, 150, 255),
    'sidewalk': (75, 0, 75),
    'other-ground': (175, 0, 75),
    'building': (255, 200, 0),
    'fence': (255, 120, 50),
    'vegetation': (0, 175, 0),
    'terrain': (150, 240, 80),
    'pole': (255, 240, 150),
    'traffic-sign': (255, 0, 0),
    'other-structure': (255, 150, 0),
    'other-object': (50, 255, 255),
}
NUSCENES_CLASSES = tuple(NUSCENES_COLORS)
KITTI360_CLASSES = tuple(KITTI360_COLORS)
