"""Raw lr = elr*rho**2 gives the same path of directions on every radius, under both step rules."""
import pytest
import torch
from torch import nn

from understanding_lrs.core.sphere import ProjectedSGD, SphericalSGD, elr_to_lr, lr_to_elr, project_

def path(rule, lr, rho, steps=50):
    "Directions after every step, for a two-layer network with layer norms (float64, eps 1e-14)"
    torch.manual_seed(0)
    norm = lambda: nn.LayerNorm(8, elementwise_affine=False, eps=1e-14)
    net = nn.Sequential(nn.Linear(6, 8, bias=False), norm(), nn.ReLU(), nn.Linear(8, 8, bias=False), norm(), nn.ReLU(),
                        nn.Linear(8, 1, bias=False).requires_grad_(False)).double()
    ws = [p for p in net.parameters() if p.requires_grad]
    project_(ws, rho)
    opt, rng, seen = rule(ws, lr=lr, rho=rho), torch.Generator().manual_seed(1), []
    for _ in range(steps):
        x = torch.randn(16, 6, generator=rng, dtype=torch.float64)
        opt.zero_grad()
        nn.functional.softplus(-net(x)[:, 0]*x[:, 0].sign()).mean().backward()
        opt.step()
        seen.append(torch.cat([w.detach().flatten() for w in ws])/rho)
    return torch.stack(seen)

@pytest.mark.parametrize('rho', [.3, 12., 100.])
@pytest.mark.parametrize('rule', [ProjectedSGD, SphericalSGD])
def test_same_path_on_every_radius(rule, rho):
    "Rounding only (the path is not chaotic within 50 steps)"
    torch.testing.assert_close(path(rule, elr_to_lr(.02, rho), rho), path(rule, .02, 1.), rtol=0, atol=1e-9)

@pytest.mark.parametrize('power', [0, 1])
@pytest.mark.parametrize('rule', [ProjectedSGD, SphericalSGD])
def test_another_power_of_the_radius_gives_another_path(rule, power):
    far = path(rule, .02*3.**power, 3.) - path(rule, .02, 1.)
    assert far[-1].norm() > .05

def test_the_two_rules_agree_for_small_rates():
    "They differ in third order of the angle of a step"
    gap = [(path(ProjectedSGD, lr, 1., 10) - path(SphericalSGD, lr, 1., 10)).norm() for lr in (2e-3, 1e-3)]
    assert 6 < gap[0]/gap[1] < 10

def test_round_trip():
    for elr in (1e-5, 3e-4, 1.):
        for rho in (.1, 1., 12.): assert lr_to_elr(elr_to_lr(elr, rho), rho) == pytest.approx(elr, rel=1e-14)
    assert elr_to_lr(.5, 2.) == 2. and lr_to_elr(2., 2.) == .5 and elr_to_lr(.3) == .3

@pytest.mark.parametrize('bad', [0, -1, float('nan'), float('inf'), '0.1', None])
def test_bad_values_are_refused(bad):
    with pytest.raises(ValueError, match='elr must be a finite number > 0'): elr_to_lr(bad, 1.)
    with pytest.raises(ValueError, match='lr must be a finite number > 0'): lr_to_elr(bad, 1.)
    with pytest.raises(ValueError, match='rho must be a finite number > 0'): elr_to_lr(.1, bad)
