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

# Classes of both that can move by themselves; what is parked is among them.
DYNAMIC_CLASSES = (
    'bicycle',
    'bus',
    'car',
    'construction_vehicle',
    'motorcycle',
    'pedestrian',
    'trailer',
    'truck',
    'other-vehicle',
    'person',
)
# LiDAR points of each class in nuScenes' training split as RenderOcc counted them, noise being "others".
NUSCENES_POINT_COUNTS: dict[str, int] = {
    'others': 2854504,
    'barrier': 7291443,
    'bicycle': 141614,
    'bus': 4239939,
    'car': 32248552,
    'construction_vehicle': 1583610,
    'motorcycle': 364372,
    'pedestrian': 2346381,
    'traffic_cone': 582961,
    'trailer': 4829021,
    'truck': 14073691,
    'driveable_surface': 191019309,
    'other_flat': 6249651,
    'sidewalk': 55095657,
    'terrain': 58484771,
    'manmade': 193834360,
    'vegetation': 131378779,
}
