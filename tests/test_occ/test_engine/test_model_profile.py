import pytest
import torch
from mmcv.ops import ModulatedDeformConv2d
from torch import nn

from projects.occ.engine.model_profile import FlopCounter, metered, parts_of, profile_steps


class Part(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 4, bias=False)

    def forward(self, x):
        return self.linear(x)

    def loss(self, x):
        return self(x).sum()


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = Part()
        self.layers = nn.ModuleList([Part(), Part()])
        self.idle = nn.Linear(3, 3)

    def step(self, x):
        for layer in self.layers:
            layer(x)
        return self.first.loss(x) + (x @ x.t()).sum()


def test_a_deformable_convolution_counts_like_a_plain_one():
    # 2 * (9 * 3) * 4 * (5 * 6) of one image, twice
    x = torch.randn(2, 3, 5, 6)
    expected = 2 * 2 * 27 * 4 * 30
    with FlopCounter() as plain:
        nn.Conv2d(3, 4, 3, padding=1)(x)
    with FlopCounter() as deformable:
        ModulatedDeformConv2d(3, 4, 3, padding=1, bias=False)(x, torch.zeros(2, 18, 5, 6), torch.ones(2, 9, 5, 6))
    assert (plain.total, deformable.total) == (expected, expected)


def test_shares_add_up_and_the_model_is_left_as_it_was():
    model, x = Net(), torch.randn(16, 8)
    before = {name: dict(vars(module)) for name, module in model.named_modules()}
    profile = profile_steps(model, lambda: model.step(x), steps=3, warmup=1)
    parts = {part.name: part for part in profile.parts}
    # idle weights are shown, "other" is the product of the step itself
    assert list(parts) == ['first', 'layers.0', 'layers.1', 'idle', 'other']
    assert [part.flops for part in profile.parts] == [1024, 1024, 1024, 0, 2 * 16 * 16 * 8]
    assert profile.flops == sum(part.flops for part in profile.parts)
    assert [part.parameters for part in profile.parts] == [32, 32, 32, 12, 0] and profile.parameters == 108
    assert 0 < sum(part.seconds for part in profile.parts) and profile.seconds > 0
    assert profile.peak_bytes is None or profile.peak_bytes > 0
    for name, module in model.named_modules():
        assert vars(module).keys() == before[name].keys()


def test_methods_that_call_each_other_count_once():
    model = Net()
    with metered({'first': (model.first, ['forward', 'loss'])}, iter(range(100)).__next__) as calls:
        model.first.loss(torch.zeros(1, 8))
    # four readings of a meter that moves by one: three steps outside and inside, none twice
    assert calls == {'first': 3.0}


def test_deeper_parts_own_their_weights():
    model, x = Net(), torch.randn(16, 8)
    profile = profile_steps(model, lambda: model.step(x), steps=1, warmup=0, depth=2)
    parts = {part.name: part.parameters for part in profile.parts}
    assert parts['first.linear'] == 32 and parts['first'] == 0 and sum(parts.values()) == profile.parameters
    assert set(parts_of(model, 2)) == {
        'first',
        'first.linear',
        'layers.0',
        'layers.0.linear',
        'layers.1',
        'layers.1.linear',
        'idle',
    }


def test_an_error_leaves_the_methods_alone():
    model = Net()
    with pytest.raises(RuntimeError), metered({'first': (model.first, ['forward'])}, lambda: 0.0):
        model.first(torch.zeros(1, 3))
    assert 'forward' not in vars(model.first)
