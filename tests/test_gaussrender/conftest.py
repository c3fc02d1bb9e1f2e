"""A small grid, a camera inside it, and a numpy splatter that follows the definition and shares no code with the product."""

import numpy as np
import pytest
import torch

from projects.gaussrender import CameraBatch

GRID = dict(
    point_cloud_range=(-2.0, -2.0, -1.0, 2.0, 2.0, 1.0),
    voxel_size=0.5,
    shape=(8, 8, 4),
    frame='ego',
    free_index=3,
    ignore_index=255,
    class_names=('wall', 'tree', 'car', 'free'),
)


def forward_camera(shift=(0.0, 0.0, 0.0)) -> np.ndarray:
    """ref2cam (4, 4) of a camera 1.7 m behind the origin that looks along +x; ``shift`` moves the world in the camera frame."""
    matrix = np.array([[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 1.7], [0, 0, 0, 1]], dtype=np.float64)
    matrix[:3, 3] += shift
    return matrix


def splat(means, scales, opacities, colors, ref2cam, K, width, height, background):
    """Isotropic Gaussians blended front to back in float64: class image (H, W, C), depth (H, W), alpha (H, W)."""
    image = np.zeros((height, width, colors.shape[1]))
    depth, light = np.zeros((height, width)), np.ones((height, width))
    stopped = np.zeros((height, width), dtype=bool)
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    rows, columns = np.mgrid[:height, :width] + 0.5
    points = means @ ref2cam[:3, :3].T + ref2cam[:3, 3]
    for i in np.argsort(points[:, 2].astype(np.float32), kind='stable'):
        x, y, z = points[i]
        if z <= 0.2:
            continue
        tx = z * np.clip(x / z, -1.3 * width / (2 * fx), 1.3 * width / (2 * fx))
        ty = z * np.clip(y / z, -1.3 * height / (2 * fy), 1.3 * height / (2 * fy))
        jacobian = np.array([[fx / z, 0, -fx * tx / z**2], [0, fy / z, -fy * ty / z**2]])
        conic = np.linalg.inv(scales[i] ** 2 * jacobian @ jacobian.T + 0.3 * np.eye(2))
        dx, dy = fx * x / z + cx - columns, fy * y / z + cy - rows
        power = -0.5 * (conic[0, 0] * dx**2 + conic[1, 1] * dy**2) - conic[0, 1] * dx * dy
        alpha = np.minimum(0.99, opacities[i] * np.exp(power))
        active = (alpha >= 1 / 255) & ~stopped
        # the stop threshold is hit exactly by two capped Gaussians: the factors are those of float32, as everywhere
        left = (light.astype(np.float32) * (1 - alpha.astype(np.float32))).astype(np.float64)
        stopped |= active & (left < 1e-4)
        weight = np.where(active & ~stopped, alpha * light, 0.0)
        image += weight[..., None] * colors[i]
        depth += weight * z
        light -= weight
    return image + light[..., None] * background, depth, 1 - light


@pytest.fixture
def grid() -> dict:
    return dict(GRID)


@pytest.fixture
def centers() -> np.ndarray:
    """Voxel centres (256, 3), z fastest."""
    axes = [np.arange(n) * 0.5 + 0.25 + low for n, low in zip((8, 8, 4), (-2, -2, -1))]
    return np.stack(np.meshgrid(*axes, indexing='ij'), -1).reshape(-1, 3)


@pytest.fixture
def cameras() -> CameraBatch:
    """Two scenes with two cameras each, 20 x 14 pixels."""
    ref2cam = np.stack(
        [
            [forward_camera(), forward_camera((0.3, 0.1, 0.5))],
            [forward_camera((0.0, 0.2, 0.2)), forward_camera((-0.2, 0.0, 0.0))],
        ]
    )
    K = np.broadcast_to(np.array([[12.0, 0, 9.3], [0, 12.0, 7.4], [0, 0, 1]]), (2, 2, 3, 3))
    return CameraBatch(torch.tensor(ref2cam).float(), torch.tensor(K.copy()).float(), 20, 14)


@pytest.fixture
def labels() -> torch.Tensor:
    """Two scenes (2, 8, 8, 4): a quarter of the voxels occupied, one slab unlabelled."""
    values = torch.randint(0, 4, (2, 8, 8, 4), generator=torch.Generator().manual_seed(3))
    values[torch.rand(values.shape, generator=torch.Generator().manual_seed(4)) < 0.7] = 3
    values[:, :, 6:, 3] = 255
    return values


@pytest.fixture
def logits() -> torch.Tensor:
    return 2 * torch.randn(2, 4, 8, 8, 4, generator=torch.Generator().manual_seed(5))


@pytest.fixture
def feats() -> torch.Tensor:
    return torch.randn(2, 6, 8, 8, 4, generator=torch.Generator().manual_seed(6))


@pytest.fixture
def reference_splat():
    return splat


@pytest.fixture
def make_camera():
    return forward_camera
