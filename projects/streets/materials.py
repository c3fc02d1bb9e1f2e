"""Surface materials: class, colour, texture and LiDAR reflectance of everything in the world."""

from enum import IntEnum

import numpy as np

from .config import CLASS_ID


class Texture(IntEnum):
    """Pattern added to a material's colour, in the order the shader knows them."""

    PLAIN = 0
    GRAIN = 1  # isotropic noise
    TILES = 2  # paving joints in x and y
    BRICKS = 3  # courses in z, joints along the wall
    LEAVES = 4  # strong, fine noise
    GLASS = 5  # reflects the sky


# name, class (None: the object's), sRGB, texture, amplitude, cells per metre, reflectance 0..255
_STATIC = (
    ('EMPTY', 'free', (0, 0, 0), Texture.PLAIN, 0.0, 1.0, 0),
    ('ASPHALT', 'driveable_surface', (92, 94, 100), Texture.GRAIN, 0.16, 3.0, 12),
    ('MARKING', 'driveable_surface', (226, 226, 220), Texture.GRAIN, 0.10, 3.0, 60),
    ('KERB', 'sidewalk', (186, 182, 176), Texture.GRAIN, 0.10, 2.0, 25),
    ('PAVEMENT', 'sidewalk', (188, 168, 150), Texture.TILES, 0.20, 1.3, 22),
    ('GRASS', 'terrain', (118, 158, 66), Texture.LEAVES, 0.30, 4.0, 18),
    ('SOIL', 'terrain', (150, 122, 82), Texture.GRAIN, 0.30, 2.0, 16),
    ('PAVERS', 'other_flat', (128, 122, 152), Texture.TILES, 0.25, 2.5, 20),
    ('PLASTER', 'manmade', (214, 196, 160), Texture.GRAIN, 0.10, 0.8, 40),
    ('BRICK', 'manmade', (170, 96, 76), Texture.BRICKS, 0.25, 4.0, 30),
    ('CONCRETE', 'manmade', (168, 168, 172), Texture.GRAIN, 0.14, 1.0, 35),
    ('CLADDING', 'manmade', (206, 212, 220), Texture.BRICKS, 0.12, 1.5, 45),
    ('WINDOW', 'manmade', (52, 68, 88), Texture.GLASS, 0.0, 1.0, 6),
    ('DOOR', 'manmade', (96, 70, 56), Texture.GRAIN, 0.10, 2.0, 25),
    ('ROOF', 'manmade', (136, 74, 62), Texture.BRICKS, 0.20, 3.0, 25),
    ('METAL', 'manmade', (120, 126, 134), Texture.PLAIN, 0.0, 1.0, 80),
    ('SIGN', 'manmade', (36, 84, 190), Texture.PLAIN, 0.0, 1.0, 220),
    ('FENCE', 'manmade', (120, 92, 66), Texture.BRICKS, 0.25, 5.0, 28),
    ('TRUNK', 'vegetation', (96, 72, 50), Texture.GRAIN, 0.35, 6.0, 20),
    ('LEAF_DARK', 'vegetation', (44, 104, 44), Texture.LEAVES, 0.55, 5.0, 24),
    ('LEAF_LIGHT', 'vegetation', (78, 128, 46), Texture.LEAVES, 0.55, 5.0, 26),
    ('LEAF_OLIVE', 'vegetation', (104, 118, 48), Texture.LEAVES, 0.55, 5.0, 26),
    ('BIN', 'others', (30, 120, 110), Texture.PLAIN, 0.0, 1.0, 40),
)
_OBJECT = (
    ('PAINT', (128, 128, 128), Texture.PLAIN, 50),  # first colour of the object
    ('PAINT2', (128, 128, 128), Texture.PLAIN, 50),  # second colour of the object
    ('GLASS', (28, 34, 42), Texture.GLASS, 5),
    ('TYRE', (26, 26, 28), Texture.GRAIN, 8),
    ('CHROME', (150, 154, 160), Texture.PLAIN, 110),
    ('HEADLIGHT', (250, 248, 235), Texture.PLAIN, 160),
    ('TAILLIGHT', (200, 20, 18), Texture.PLAIN, 180),
    ('SKIN', (206, 160, 130), Texture.PLAIN, 25),
    ('HAIR', (50, 38, 30), Texture.PLAIN, 15),
    ('WHITE', (238, 238, 236), Texture.PLAIN, 150),
    ('RED', (206, 36, 30), Texture.PLAIN, 120),
    ('ORANGE', (245, 108, 20), Texture.PLAIN, 130),
    ('DARK', (44, 46, 50), Texture.PLAIN, 12),
)
Material = IntEnum('Material', {row[0]: i for i, row in enumerate((*_STATIC, *_OBJECT))})
OBJECT_CLASS = 255

# Class of each material; OBJECT_CLASS where the object decides.
MATERIAL_CLASS = np.array([CLASS_ID[row[1]] for row in _STATIC] + [OBJECT_CLASS] * len(_OBJECT), dtype=np.uint8)
MATERIAL_RGB = np.array([row[2] for row in _STATIC] + [row[1] for row in _OBJECT], dtype=np.float64) / 255
MATERIAL_TEXTURE = np.array([int(row[3]) for row in _STATIC] + [int(row[2]) for row in _OBJECT], dtype=np.int64)
MATERIAL_AMPLITUDE = np.array([row[4] for row in _STATIC] + [0.06] * len(_OBJECT))
MATERIAL_FREQUENCY = np.array([row[5] for row in _STATIC] + [4.0] * len(_OBJECT))
MATERIAL_REFLECTANCE = np.array([row[6] for row in _STATIC] + [row[3] for row in _OBJECT], dtype=np.float64)


def to_linear(srgb: np.ndarray) -> np.ndarray:
    """sRGB values in 0..1 -> linear light (power 2.2)."""
    return np.asarray(srgb, dtype=np.float64) ** 2.2


def draw_palette(rng: np.random.Generator) -> np.ndarray:
    """Material colours of one scene, (M, 3) linear light: every material is a little brighter, darker or tinted."""
    value = rng.normal(1.0, 0.09, (len(MATERIAL_RGB), 1))
    tint = rng.normal(0.0, 0.025, MATERIAL_RGB.shape)
    return to_linear(np.clip(MATERIAL_RGB * value + tint, 0.01, 0.99))
