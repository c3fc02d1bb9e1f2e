"""GaussRender in a bare PyTorch loop: no config, no runner, none of the mm packages.

The scenes are made up: boxes on a plane, photographed by the renderer itself. ``python projects/example_model/bare_loop.py``
"""

import math
import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from projects.example_model.voxel_network import ProjectAndAverage, VoxelClassifier  # noqa: E402
from projects.gaussrender import CameraBatch, GaussRender  # noqa: E402
from projects.occ.structures import Cameras, OccBatch  # noqa: E402

GRID = dict(
    point_cloud_range=(-8, -8, -1, 8, 8, 3),
    voxel_size=1.0,
    shape=(16, 16, 4),
    frame='ego',
    free_index=3,
    class_names=('ground', 'red box', 'blue box', 'free'),
)
COLORS = torch.tensor([[0.4, 0.4, 0.4], [1.0, 0.1, 0.1], [0.1, 0.2, 1.0], [0.8, 0.9, 1.0]])  # RGB per class
WIDTH, HEIGHT = 64, 40


class Network(nn.Module):
    """Images (B, N, 3, H, W) and their cameras -> logits (B, C, X, Y, Z), features (B, 24, X, Y, Z)."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 1, 1), nn.ReLU())
        self.lift = ProjectAndAverage(GRID)
        self.voxels = VoxelClassifier(GRID, in_channels=16, channels=24)

    def forward(self, images: Tensor, cameras: Cameras) -> tuple[Tensor, Tensor]:
        feats = self.image(images.flatten(0, 1)).unflatten(0, images.shape[:2])
        return self.voxels(self.lift([feats], OccBatch(cameras, images)))


def make_labels(scenes: int, generator: torch.Generator) -> Tensor:
    """(B, 16, 16, 4) labels: ground, and six boxes on it."""
    labels = torch.full((scenes, *GRID['shape']), GRID['free_index'])
    labels[..., 0] = 0
    for scene in labels:
        for x, y, kind in torch.randint(0, 13, (6, 3), generator=generator).tolist():
            scene[x : x + 3, y : y + 2, 1:3] = 1 + kind % 2
    labels[:, 6:10, 6:10, 1:] = GRID['free_index']  # where the cameras are
    return labels


def make_cameras(scenes: int) -> CameraBatch:
    """Four cameras in the middle of the grid, looking forward, left, back and right."""
    ref2cam = []
    for angle in (0.0, 0.5 * math.pi, math.pi, 1.5 * math.pi):
        c, s = math.cos(angle), math.sin(angle)
        ref2cam.append([[s, -c, 0, 0], [0, 0, -1, 1.0], [c, s, 0, 0], [0, 0, 0, 1]])  # x right, y down, z forward
    K = torch.tensor([[32.0, 0, WIDTH / 2], [0, 32.0, HEIGHT / 2], [0, 0, 1]])
    return CameraBatch(torch.tensor(ref2cam).expand(scenes, 4, 4, 4), K.expand(scenes, 4, 3, 3), WIDTH, HEIGHT)


def train(steps: int = 100, scenes: int = 4) -> list[dict[str, float]]:
    """Trains and returns the loss terms of every step."""
    generator = torch.Generator().manual_seed(0)
    network = Network()
    render = GaussRender(
        grid=GRID,
        gaussians=dict(feat_channels=24),
        cameras=dict(type='ElevatedAroundCameras', max_shift=1.0, num_cameras=2),
        bev=dict(size=64),
    )
    labels, cameras = make_labels(scenes, generator), make_cameras(scenes)
    classes = render.render_labels(labels, cameras).cam_sem  # (B, N, H, W, C)
    images = (classes @ COLORS).permute(0, 1, 4, 2, 3)

    # the decoder of the opacities learns too
    optimizer = torch.optim.AdamW([*network.parameters(), *render.parameters()], lr=5e-3)
    history = []
    for _ in range(steps):
        logits, feats = network(images, cameras)
        losses = dict(loss_voxel=F.cross_entropy(logits, labels), **render(logits, labels, cameras, voxel_feats=feats))
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        history.append({name: value.item() for name, value in losses.items()})
    return history


if __name__ == '__main__':
    for step, losses in enumerate(train()):
        if step % 10 == 9:
            print(step + 1, '  '.join(f'{name} {value:.3f}' for name, value in losses.items()))
