"""|w| = rho after every step; projected and spherical SGD follow independent float64 oracles, step by step."""
import math

import numpy as np
import pytest
import torch
from torch import nn

from understanding_lrs.core.sphere import ProjectedSGD, SphericalSGD, joint_norm, project_

RULES = [ProjectedSGD, SphericalSGD]
SHAPES = (4, 3), (5,), (2, 2, 2)

def weights(dtype=torch.float64, seed=0, rho=1.):
    rng = torch.Generator().manual_seed(seed)
    ws = [nn.Parameter(torch.randn(s, generator=rng, dtype=torch.float64).to(dtype)) for s in SHAPES]
    project_(ws, rho)
    return ws

def tangent_grads(ws, rng):
    "Random gradients orthogonal to the weights as one vector, as a scale-invariant loss has them"
    gs = [torch.randn(w.shape, generator=rng, dtype=torch.float64).to(w.dtype) for w in ws]
    along = sum((g*w.detach()).sum() for g, w in zip(gs, ws))/sum((w.detach()**2).sum() for w in ws)
    return [g - along*w.detach() for g, w in zip(gs, ws)]

def flat(ts): return np.concatenate([t.detach().numpy().astype(np.float64).ravel() for t in ts])

def projected_oracle(w, g, lr, rho):
    v = w - lr*g
    return rho*v/np.sqrt(np.dot(v, v))

def spherical_oracle(w, g, lr, rho):
    "Rotation by the angle lr*|g|/|w| in the plane of w and g: the exponential of a skew matrix"
    w, g = torch.tensor(w), torch.tensor(g)
    a, b = w/w.norm(), g/g.norm()
    skew = torch.outer(a, b) - torch.outer(b, a)
    return (torch.matrix_exp(skew*lr*g.norm()/w.norm()) @ w).numpy()

@pytest.mark.parametrize('dtype,tol', [(torch.float32, 2e-7), (torch.float64, 1e-15)])
@pytest.mark.parametrize('rho', [1., 12.])
@pytest.mark.parametrize('rule', RULES)
def test_norm_is_conserved_over_1000_steps(rule, rho, dtype, tol):
    "Renormalised once a step, so the error does not grow: a few rounding errors of the dtype"
    ws, rng = weights(dtype, rho=rho), torch.Generator().manual_seed(1)
    opt, start = rule(ws, lr=.1*rho**2, rho=rho), flat(ws)
    for _ in range(1000):
        for w in ws: w.grad = torch.randn(w.shape, generator=rng, dtype=dtype)/rho
        opt.step()
        assert abs(joint_norm(ws)/rho - 1) < tol
    assert np.linalg.norm(flat(ws) - start) > .1*rho  # they did move

def test_norm_grows_without_the_sphere():
    ws, rng = weights(), torch.Generator().manual_seed(1)
    opt = torch.optim.SGD(ws, lr=.1)
    for _ in range(10):
        for w, g in zip(ws, tangent_grads(ws, rng)): w.grad = g
        opt.step()
    assert joint_norm(ws) > 1.1

@pytest.mark.parametrize('rho', [.5, 1., 12.])
@pytest.mark.parametrize('rule,oracle', [(ProjectedSGD, projected_oracle), (SphericalSGD, spherical_oracle)])
def test_steps_follow_the_oracle(rule, oracle, rho):
    ws, rng, lr = weights(rho=rho), torch.Generator().manual_seed(2), .05*rho**2
    opt, w = rule(ws, lr=lr, rho=rho), flat(ws)
    for _ in range(100):
        gs = [g/rho for g in tangent_grads(ws, rng)]
        for p, g in zip(ws, gs): p.grad = g
        opt.step()
        w = oracle(w, flat(gs), lr, rho)
        np.testing.assert_allclose(flat(ws), w, rtol=0, atol=1e-11*rho)

def test_the_oracles_differ():
    "Arc against straight step: the comparison above can fail"
    ws = weights()
    g = flat(tangent_grads(ws, torch.Generator().manual_seed(2)))
    assert np.abs(projected_oracle(flat(ws), g, .2, 1.) - spherical_oracle(flat(ws), g, .2, 1.)).max() > 1e-2

def test_projected_takes_the_gradient_as_it_comes():
    "No tangent projection: a gradient along w shortens the vector before it is brought back"
    w = nn.Parameter(torch.tensor([1., 0.], dtype=torch.float64))
    w.grad = torch.tensor([.5, 1.], dtype=torch.float64)
    ProjectedSGD([w], lr=1.).step()
    np.testing.assert_allclose(flat([w]), np.array([.5, -1.])/np.hypot(.5, 1), atol=1e-15)

def test_full_turn_of_the_great_circle():
    w = nn.Parameter(torch.tensor([1., 0.], dtype=torch.float64))
    opt = SphericalSGD([w], lr=2*math.pi/8)
    seen = []
    for _ in range(8):
        w.grad = torch.stack([-w.detach()[1], w.detach()[0]])
        opt.step()
        seen.append(w.detach().clone())
    np.testing.assert_allclose(seen[1], [0, -1], atol=1e-14)
    np.testing.assert_allclose(seen[-1], [1, 0], atol=1e-14)

@pytest.mark.parametrize('rule', RULES)
def test_zero_or_missing_gradient_moves_nothing(rule):
    ws = weights()
    before, opt = flat(ws), rule(ws, lr=.1)
    opt.step()
    for w in ws: w.grad = torch.zeros_like(w)
    opt.step()
    np.testing.assert_allclose(flat(ws), before, atol=1e-15)

@pytest.mark.parametrize('rule', RULES)
def test_groups_have_their_own_spheres(rule):
    a, b = weights(seed=0, rho=2.), weights(seed=1, rho=5.)
    opt = rule([dict(params=a, rho=2.), dict(params=b, rho=5., lr=.3)], lr=.1)
    for w, g in zip(a + b, tangent_grads(a + b, torch.Generator().manual_seed(3))): w.grad = g
    opt.step()
    assert joint_norm(a) == pytest.approx(2.) and joint_norm(b) == pytest.approx(5.)

@pytest.mark.parametrize('rule', RULES)
def test_closure_and_state(rule):
    w = nn.Parameter(torch.tensor([1., 0.]))
    opt = rule([w], lr=.1)
    def closure():
        opt.zero_grad()
        loss = (w*torch.tensor([0., 1.])).sum()/w.norm()
        loss.backward()
        return loss
    assert opt.step(closure).item() == 0. and w[1] < 0
    assert opt.state_dict()['param_groups'][0]['lr'] == .1 and not opt.state_dict()['state']

def test_joint_norm_is_of_all_tensors_and_sums_in_float64():
    assert joint_norm([torch.tensor([3.]), torch.tensor([[4.]])]) == 5.
    assert joint_norm([torch.full((10_000_000,), .1)]) == pytest.approx(.1*10_000_000**.5, rel=1e-7)

def test_projection_uses_one_factor():
    ws = [torch.tensor([3., 0.]), torch.tensor([[0., 4.]])]
    assert project_(ws, 2.) == 5.
    np.testing.assert_allclose(ws[0].numpy()/3, [.4, 0], rtol=1e-6)
    np.testing.assert_allclose(ws[1].numpy()/4, [[0, .4]], rtol=1e-6)

@pytest.mark.parametrize('bad,norm', [([0., 0.], '0.0'), ([1., math.nan], 'nan'), ([1., math.inf], 'inf')])
def test_no_direction_is_refused_and_left_alone(bad, norm):
    w = torch.tensor(bad)
    with pytest.raises(ValueError, match=f'norm {norm}'): project_([w])
    np.testing.assert_array_equal(w.numpy(), np.float32(bad))

@pytest.mark.parametrize('bad', [math.nan, math.inf])
@pytest.mark.parametrize('rule', RULES)
def test_diverged_gradient_is_refused_before_any_weight_changes(rule, bad):
    ws = weights()
    before, opt = flat(ws), rule(ws, lr=.1)
    for w, g in zip(ws, tangent_grads(ws, torch.Generator().manual_seed(4))): w.grad = g
    ws[-1].grad.view(-1)[0] = bad
    with pytest.raises(ValueError, match='^cannot (project|turn) weights'): opt.step()
    np.testing.assert_array_equal(flat(ws), before)

@pytest.mark.parametrize('bad', [0, -1., math.nan, math.inf, '1e-3', None, True])
@pytest.mark.parametrize('rule', RULES)
def test_bad_rates_and_radii_are_refused(rule, bad):
    with pytest.raises(ValueError, match='lr must be a finite number > 0'): rule(weights(), lr=bad)
    with pytest.raises(ValueError, match='rho must be a finite number > 0'): rule(weights(), lr=.1, rho=bad)
    with pytest.raises(ValueError, match='rho must be a finite number > 0'): project_(weights(), bad)
