"""Two processes: the loop over frames leaves no parameter without a gradient, and gradients are averaged."""

import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel


class _Losses(torch.nn.Module):
    """The part of a training step that a data-parallel wrapper sees."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, batch):
        return sum(self.model.occ_head.loss_by_feat(self.model.encode_decode(batch), batch).values())


def step(rank, address, folder, with_cp):
    sys.path.insert(0, str(Path(__file__).parent))
    from mmengine.registry import init_default_scope
    from tiny_bevdet import build_batch, build_model

    torch.set_num_threads(1)
    init_default_scope('mmdet3d')
    dist.init_process_group('gloo', init_method=address, rank=rank, world_size=2)
    model = build_model()
    for part in (model.view_encoder.depth_net, model.view_encoder.voxel_encoder):
        part.with_cp = with_cp
    wrapped = DistributedDataParallel(_Losses(model), find_unused_parameters=False, broadcast_buffers=False)
    # the second step raises where the first one left a parameter out
    for seed in range(2):
        wrapped.zero_grad()
        wrapped(build_batch(seed=2 * seed + rank)).backward()
    torch.save({name: p.grad for name, p in model.named_parameters()}, Path(folder) / f'{rank}.pth')
    dist.destroy_process_group()


@pytest.mark.parametrize('with_cp', [False, True])
def test_two_processes(tmp_path, with_cp):
    mp.spawn(step, args=(f'file://{tmp_path}/rendezvous', str(tmp_path), with_cp), nprocs=2)
    first, second = (torch.load(tmp_path / f'{rank}.pth', weights_only=True) for rank in range(2))
    assert first.keys() == second.keys()
    for name, grad in first.items():
        assert torch.equal(grad, second[name]), name
    assert sum(bool(grad.any()) for grad in first.values()) > 0.8 * len(first)
