"""Activation checkpointing in front of batch normalisation and dropout."""

import copy

import pytest
import torch
from torch import nn

from projects.occ.models.layers import recompute


def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3), nn.BatchNorm1d(3))


@pytest.mark.parametrize('training', [True, False])
def test_numbers_gradients_and_statistics_are_those_of_a_plain_call(training):
    plain, checkpointed = build().train(training), build().train(training)
    x = torch.randn(16, 4)
    results = []
    for module, call in ((plain, plain), (checkpointed, lambda x: recompute(checkpointed, x))):
        torch.manual_seed(1)
        given = x.clone().requires_grad_()
        output = call(given)
        output.square().sum().backward()
        results.append((output, given.grad, [p.grad for p in module.parameters()], copy.deepcopy(module.state_dict())))
    (a, grad_a, grads_a, state_a), (b, grad_b, grads_b, state_b) = results
    assert torch.equal(a, b) and torch.equal(grad_a, grad_b)
    assert all(torch.equal(p, q) for p, q in zip(grads_a, grads_b))
    for key, value in state_a.items():
        assert torch.equal(value, state_b[key]), key
    assert state_a['1.num_batches_tracked'] == int(training)


def test_activations_are_really_dropped():
    module = build()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        module(torch.randn(16, 4, requires_grad=True)).sum()
    plain = sum(kept)
    kept.clear()
    x = torch.randn(16, 4, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        recompute(module, x).sum()
    assert sum(kept) < plain / 2


def test_another_function_and_calls_without_gradients():
    module = build().eval()
    x = torch.randn(4, 4)
    twice = recompute(module, x, function=lambda x: (module(x), module(2 * x)))
    assert torch.equal(twice[1], module(2 * x)) and twice[0].grad_fn is not None
    with torch.no_grad():
        assert recompute(module, x).grad_fn is None
