"""The picture networks are the paper's: counts, norms and maps of the protocol; f(c*w) = f(w) for the convs of each; init by seed alone."""
import dataclasses

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from understanding_lrs.networks.convnet import ConvNet, ConvNetSpec
from understanding_lrs.networks.mlp import MLPSpec
from understanding_lrs.networks.convolutional import ConvolutionalSpec
from understanding_lrs.networks.spec import architecture
from understanding_lrs.networks.resnet import PreactResNet18, ResNet18Spec, resnet_blocks
from understanding_lrs.core.sphere import ProjectedSGD, elr_to_lr, invariant_groups, joint_norm, scaling_error

RESNET, CONVNET = ResNet18Spec(width=2, classes=3, size=8), ConvNetSpec(2, 3, 8)
PRACTICAL = ResNet18Spec(width=2, classes=3, size=8, practical=True)
ALL = {'resnet': RESNET, 'convnet': CONVNET, 'practical': PRACTICAL, 'one channel, side 24': ConvNetSpec(3, 4, 24, channels=1),
       'side 16': ResNet18Spec(width=2, classes=3, size=16)}
SCALE_INVARIANT = [k for k in ALL if k != 'practical']

def pictures(spec, n=8, seed=0):
    return torch.randn(n, spec.channels, spec.size, spec.size, generator=torch.Generator().manual_seed(seed))

def names(net): return net.spec.layer_names()

# protocol 2.1: convs, norms' affine weights, head, filters, norm at init rounded to two digits
PROTOCOL = [(ResNet18Spec(), 2_790_240, 0, 2_560, 2_400, 28.28), (ResNet18Spec(classes=100), 2_790_240, 0, 25_600, 2_400, 28.28),
            (ResNet18Spec(width=64, practical=True), 11_159_232, 8_704, 5_120, 4_800, 40.),
            (ResNet18Spec(width=64, classes=100, practical=True), 11_159_232, 8_704, 51_200, 4_800, 40.),
            (ConvNetSpec(), 387_936, 0, 2_570, 480, 12.65), (ConvNetSpec(128, 100), 6_196_608, 0, 102_500, 1_920, 25.30)]

@pytest.mark.parametrize('spec,convs,affine,head,n_filters,norm', PROTOCOL)
def test_counts_of_the_protocol(spec, convs, affine, head, n_filters, norm):
    with torch.device('meta'): net = (PreactResNet18 if spec.arch == 'resnet18' else ConvNet)(spec)
    count = lambda ps: sum(p.numel() for p in ps)
    assert count(net.weights()) == spec.n_conv_weights == convs
    assert count(net.head.parameters()) == head and count(net.parameters()) == convs + affine + head
    assert spec.filters == n_filters and round(spec.init_norm, 2) == norm

@pytest.mark.parametrize('spec', [ResNet18Spec(), ConvNetSpec()])
def test_norms_at_init(spec):
    net = spec.build(seed=3)
    assert joint_norm(net.weights()) == pytest.approx(spec.init_norm, rel=.01)  # spread of a norm of > 10**5 numbers
    for p in net.weights():
        bound = p[0].numel()**-.5
        assert .95*bound < p.abs().max() <= bound*(1 + 1e-6) and p.std().item() == pytest.approx(bound/3**.5, rel=.05)
    assert net.head.weight.norm().item() == pytest.approx(10, rel=1e-6)
    assert net.head.bias is None or (net.head.bias.abs() <= (8*spec.width)**-.5).all()

def test_radii():
    assert [s.default_radius() for s in (ResNet18Spec(), ConvNetSpec(), ConvNetSpec(128))] == [28, 12, 25]
    with pytest.raises(ValueError, match='a practical network has no radius'): PRACTICAL.default_radius()

def test_head_of_the_practical_network():
    "Default norm, trained; the frozen ones scaled to the norm asked for, in the same direction"
    w, s = PRACTICAL.initial_head(1)[0], RESNET.initial_head(1)[0]
    assert w.abs().max() <= 16**-.5 and s.norm().item() == pytest.approx(10)
    torch.testing.assert_close(s, w*10/w.norm())
    assert PRACTICAL.build(1).head.weight.requires_grad
    assert dataclasses.replace(RESNET, readout_norm=2.5).initial_head(1)[0].norm().item() == pytest.approx(2.5)

@pytest.mark.parametrize('spec', [ResNet18Spec(width=4), ConvNetSpec(4), ResNet18Spec(width=2, classes=7, size=24, channels=1)])
def test_layers_and_cost_are_those_of_the_module(spec):
    net, seen, cost = spec.build(0), {}, []
    def note(m, _, y):
        seen[m] = (*m.weight.shape[:3], y.shape[-1])
        cost.append(m.weight.numel()*y[0, 0].numel())
    for m in net.modules():
        if isinstance(m, (nn.Conv2d, nn.Linear)): m.register_forward_hook(note if isinstance(m, nn.Conv2d) else
                                                                          lambda m, _, y: cost.append(m.weight.numel()))
    net(pictures(spec, 2))
    assert [seen[m] for m in net.modules() if m in seen] == spec.layers
    assert sum(cost) == spec.macs

def test_cost_of_the_protocol():
    "0.139, 0.556, 0.058, 0.91 G there; the second is 0.5554 when counted"
    found = [s.macs for s in (ResNet18Spec(), ResNet18Spec(width=64), ConvNetSpec(), ConvNetSpec(128, 100))]
    assert found == pytest.approx([.139e9, .556e9, .058e9, .91e9], rel=.01)
    assert found[1] == 555_422_720

def norms_of(net): return [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]

@pytest.mark.parametrize('kind', ALL)
def test_norms_are_those_of_the_protocol(kind):
    net = ALL[kind].build(0)
    assert len(norms_of(net)) == (4 if ALL[kind].arch == 'convnet' else 20)  # 16 in blocks, 3 in shortcuts, the last
    for m in norms_of(net): assert (m.eps, m.momentum, m.track_running_stats, m.affine) == (1e-5, .1, True, kind == 'practical')

def by_hand(net, x, quirk=True):
    "The protocol's table as plain operations on the weights, in train mode; without the quirk the shortcut reads the raw x"
    bn = lambda x: (x - x.mean((0, 2, 3), keepdim=True))/(x.var((0, 2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
    ws = iter(net.weights())
    if net.spec.arch == 'convnet':
        for l, w in enumerate(ws):
            x = bn(F.conv2d(x, w, padding=1)).relu()
            if l: x = x.unfold(2, 2, 2).unfold(3, 2, 2).amax((4, 5))
        return x.amax((2, 3)) @ net.head.weight.T + net.head.bias
    x = F.conv2d(x, next(ws), padding=1)
    for stage in range(4):
        for block in range(2):
            u, first = bn(x).relu(), stage > 0 and block == 0
            main = F.conv2d(bn(F.conv2d(u, next(ws), stride=1 + first, padding=1)).relu(), next(ws), padding=1)
            x = main + (F.conv2d(bn(u) if quirk else x, next(ws), stride=2) if first else x)
    return bn(x).relu().mean((2, 3)) @ net.head.weight.T

@pytest.mark.parametrize('kind', SCALE_INVARIANT)
def test_forward_is_the_table(kind):
    net, x = ALL[kind].build(1).double(), pictures(ALL[kind]).double()
    torch.testing.assert_close(net(x), by_hand(net, x), rtol=1e-9, atol=1e-9)

def test_practical_forward_starts_as_the_table_and_has_affine_norms():
    net, x = PRACTICAL.build(1).double(), pictures(PRACTICAL).double()
    before = net(x)
    torch.testing.assert_close(before, by_hand(net, x), rtol=1e-9, atol=1e-9)
    with torch.no_grad(): net.bn.weight.mul_(2.)
    torch.testing.assert_close(net(x), 2*before, rtol=1e-9, atol=1e-9)

def test_the_shortcut_reads_the_rectified_input_normalised_again():
    net, x = RESNET.build(1).double(), pictures(RESNET).double()
    assert not torch.allclose(net(x), by_hand(net, x, quirk=False), rtol=1e-2)
    seen = {}
    block = net.blocks[2]
    for name in ('bn_short', 'bn1'): getattr(block, name).register_forward_hook(lambda m, i, o, name=name: seen.update({name: (i[0], o)}))
    net(x)
    assert torch.equal(seen['bn_short'][0], seen['bn1'][1].relu())
    assert [b.short is not None for b in net.blocks] == [s == 2 for *_, s in resnet_blocks(2)] == [False, False] + [True, False]*3

SUMS = [['stem.weight', 'blocks.0.conv2.weight', 'blocks.1.conv2.weight']] + [
    [f'blocks.{b}.conv2.weight', f'blocks.{b}.short.weight', f'blocks.{b+1}.conv2.weight'] for b in (2, 4, 6)]

RESNET_GROUPS = sorted([[f'blocks.{b}.conv1.weight'] for b in range(8)] + SUMS)

@pytest.mark.parametrize('spec', [RESNET, ALL['side 16']])
def test_groups_of_the_resnet(spec):
    "conv1 of each block alone; what is added in a stage together; the union are all 20 convs"
    net = spec.build(1)
    assert sorted(invariant_groups(net, pictures(spec))) == RESNET_GROUPS
    assert sorted(sum(RESNET_GROUPS, [])) == sorted(names(net)) and len(names(net)) == 20

@pytest.mark.parametrize('kind', ['convnet', 'one channel, side 24'])
def test_groups_of_the_convnet(kind):
    assert invariant_groups(ALL[kind].build(1), pictures(ALL[kind])) == [[f'convs.{l}.weight'] for l in range(4)]

def test_groups_of_the_practical_network():
    "With its norms held fixed those of the scale-invariant one. With trained norms 11 more, made of pairs in front of a conv"
    net = PRACTICAL.build(1)
    for m in norms_of(net): m.requires_grad_(False)
    assert sorted(invariant_groups(net, pictures(PRACTICAL))) == RESNET_GROUPS
    wide = dataclasses.replace(PRACTICAL, width=4, size=16)  # narrower, a block can be dead for random gains
    net, x = wide.build(1), pictures(wide)
    groups = invariant_groups(net, x)
    assert len(groups) == 23 and all([f'blocks.{b}.bn1.weight', f'blocks.{b}.bn1.bias'] in groups for b in range(8))
    assert sorted(map(len, groups)) == [1]*8 + [2]*8 + [3]*4 + [5]*3
    assert not {'bn.weight', 'bn.bias', 'head.weight', 'blocks.2.bn_short.bias'} & set(sum(groups, []))
    for g in [max(groups, key=len), *SUMS]: assert scaling_error(net, x, g, 10.) < 1e-8

@pytest.mark.parametrize('c', [.1, 10.])
@pytest.mark.parametrize('kind', ALL)
def test_the_function_does_not_see_the_joint_scale_of_the_convs(kind, c):
    "In float64 with a tiny eps"
    net = ALL[kind].build(1)
    assert scaling_error(net, pictures(ALL[kind]), names(net), c) < 1e-8

@pytest.mark.parametrize('kind', ALL)
def test_without_norms_it_does(kind):
    net = ALL[kind].build(1)
    for m in list(net.modules()):
        for n, child in list(m.named_children()):
            if isinstance(child, nn.BatchNorm2d): setattr(m, n, nn.Identity())
    assert not norms_of(net) and invariant_groups(net, pictures(ALL[kind])) == []
    assert scaling_error(net, pictures(ALL[kind]), names(net), 10.) > 1

def test_one_tensor_of_a_sum_alone_matters():
    net, x = RESNET.build(1), pictures(RESNET)
    for g in SUMS:
        for n in g: assert scaling_error(net, x, [n], 10.) > 1e-3

@pytest.mark.parametrize('kind', SCALE_INVARIANT)
def test_a_sphere_optimiser_takes_what_asks_for_a_gradient(kind):
    "It is all convs and nothing else; the joint norm is held, the head stays"
    spec = ALL[kind]
    net, x, rho = spec.build(1), pictures(spec), spec.default_radius()
    params, before = [p for p in net.parameters() if p.requires_grad], {k: v.clone() for k, v in net.head.state_dict().items()}
    convs = [m.weight for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert [*map(id, params)] == [id(p) for p in net.weights()] == [*map(id, convs)]
    optimizer, start = ProjectedSGD(params, elr_to_lr(1e-2, rho), rho), net.flat()
    for _ in range(5):
        optimizer.zero_grad()
        F.cross_entropy(net(x), torch.arange(len(x)) % spec.classes).backward()
        optimizer.step()
        assert joint_norm(params) == pytest.approx(rho, rel=1e-6)
    assert all(torch.equal(v, before[k]) for k, v in net.head.state_dict().items()) and not torch.equal(net.flat(), start)

@pytest.mark.parametrize('kind', ALL)
def test_init_depends_on_the_seeds_alone(kind):
    spec = ALL[kind]
    torch.manual_seed(0)
    a = spec.build(1).state_dict()
    torch.manual_seed(5)
    b, c, d = (spec.build(*s).state_dict() for s in ((1,), (2,), (1, 0)))
    assert all(torch.equal(a[k], b[k]) for k in a)
    convs = names(spec.build(1))
    assert not any(torch.equal(a[k], c[k]) for k in [*convs, 'head.weight'])
    assert all(torch.equal(a[k], d[k]) for k in convs) and not torch.equal(a['head.weight'], d['head.weight'])  # 0 is a seed
    assert torch.equal(d['head.weight'], spec.build(0).head.weight)

def test_init_is_pinned():
    "The same numbers on every machine: corners of the stem, the last conv, a head and a bias"
    net = ResNet18Spec().build(1)
    found = net.flat()[0], net.flat()[-1], net.head.weight[0, 0], CONVNET.build(1).head.bias[-1]
    assert [f'{v:.6g}' for v in found] == ['0.105541', '0.0107753', '0.32355', '0.192502']

@pytest.mark.parametrize('kind', ALL)
def test_flat_and_load_flat_are_inverse(kind):
    a, b = ALL[kind].build(1), ALL[kind].build(2, 1)
    b.load_state_dict({**b.state_dict(), **{k: v for k, v in a.state_dict().items() if 'norm' in k or 'bn' in k}})
    w = a.flat()
    assert w.shape == (ALL[kind].n_conv_weights,) and not torch.equal(b.flat(), w)
    assert b.load_flat_(w) is b and torch.equal(b.flat(), w)
    x = pictures(ALL[kind])
    assert torch.equal(a(x), b(x))
    w.zero_()  # a copy
    assert not torch.equal(a.flat(), w)
    with pytest.raises(ValueError, match=rf'expected \({len(w)},\) weights, got \(7,\)'): a.load_flat_(torch.zeros(7))

def test_mlp_has_the_same_parts():
    net = MLPSpec(5, 4, 3).build(1, 1)
    assert names(net) == ['hidden.0.weight', 'hidden.1.weight', 'hidden.2.weight'] and net.flat().shape == (5*4 + 2*16,)

@pytest.mark.parametrize('bad,text', [
    (dict(size=28), 'size must be a multiple of 8 .*got 28'),
    (dict(size=0), 'size must be an integer >= 8, got 0'), (dict(width=0), 'width must be an integer >= 1, got 0'),
    (dict(width=2.), 'width must be an integer >= 1, got 2.0'), (dict(width=True), 'width must be an integer >= 1, got True'),
    (dict(classes=1), 'classes must be an integer >= 2, got 1'), (dict(channels=0), 'channels must be an integer >= 1, got 0'),
    (dict(practical=1), 'practical must be True or False, got 1'), (dict(eps=0.), 'eps must be a finite number > 0, got 0.0'),
    (dict(eps='1e-5'), "eps must be a finite number > 0, got '1e-5'"), (dict(readout_norm=float('nan')), 'readout_norm must be .* got nan'),
    (dict(readout_norm=float('inf')), 'readout_norm must be .* got inf')])
def test_bad_specs(bad, text):
    with pytest.raises(ValueError, match=text): ResNet18Spec(**bad)

def test_bad_calls():
    with pytest.raises(ValueError, match="arch must be one of convnet, resnet18, got 'resnet50'"): architecture('resnet50', ConvolutionalSpec)
    with pytest.raises(ValueError, match=r'images must be \(n, 3, 8, 8\), got \(8, 1, 8, 8\)'):
        RESNET.build(1)(torch.zeros(8, 1, 8, 8))
    with pytest.raises(ValueError, match='takes integers >= 0'): RESNET.build(-1)
