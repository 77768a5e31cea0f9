"""f(c*w) = f(w) for every group found; hence <grad, w> = 0 and |grad| ~ 1/c. No group where nothing is invariant."""
import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from understanding_lrs.core.sphere import (bare_copy, disjoint_sets, echelon, invariant_groups, scale_products,
                                      scaling_error, zero_one_sums)

def lin(i, o, bias=False): return nn.Linear(i, o, bias=bias)
def ln(n): return nn.LayerNorm(n, elementwise_affine=False)

class PreActivation(nn.Module):
    "Two residual blocks with batch norm; the norms have no affine weights, the head is frozen"
    def __init__(self, c=4):
        super().__init__()
        conv = lambda i, o: nn.Conv2d(i, o, 3, padding=1, bias=False)
        self.stem, self.c1, self.c2, self.c3, self.c4, self.short = conv(3, c), *(conv(c, c) for _ in range(5))
        self.norms = nn.ModuleList(nn.BatchNorm2d(c, affine=False) for _ in range(5))
        self.head = lin(c, 2).requires_grad_(False)
    def forward(self, x):
        n, h = self.norms, self.stem(x)
        h = h + self.c2(n[1](self.c1(n[0](h).relu())).relu())
        a = n[2](h).relu()
        h = self.short(a) + self.c4(n[3](self.c3(a)).relu())
        return self.head(n[4](h).relu().mean((2, 3)))

class Functional(nn.Module):
    "A norm without a layer: its eps stays"
    def __init__(self):
        super().__init__()
        self.w, self.v = nn.Parameter(torch.ones(8, 6)), nn.Parameter(torch.ones(1, 8))
    def forward(self, x): return F.layer_norm(x @ self.w.T, (8,), eps=1e-7) @ self.v.T

class Attention(nn.Module):
    "Queries times keys, scaled against each other; the stream is normalised at the end"
    def __init__(self, d=6):
        super().__init__()
        self.q, self.k, self.v, self.o, self.e = (lin(d, d) for _ in range(5))
    def forward(self, x):
        h = self.e(x)
        n = F.layer_norm(h, (6,), eps=1e-14)
        h = h + self.o((self.q(n) @ self.k(n).mT).softmax(-1) @ self.v(n))
        return F.layer_norm(h, (6,), eps=1e-14)

torch.manual_seed(0)
NETS = {
    'mlp': (nn.Sequential(lin(32, 32), ln(32), nn.ReLU(), lin(32, 32), ln(32), nn.ReLU(), lin(32, 1)), (16, 32),
            [['0.weight'], ['3.weight']]),
    'bias': (nn.Sequential(lin(5, 6, True), ln(6), nn.Tanh(), lin(6, 2, True)), (16, 5), [['0.weight', '0.bias']]),
    'all of it': (nn.Sequential(lin(5, 6, True), ln(6)), (16, 5), [['0.weight', '0.bias']]),
    'affine': (nn.Sequential(lin(5, 6), nn.LayerNorm(6), nn.ReLU(), lin(6, 6), ln(6), lin(6, 2)), (16, 5),
               [['0.weight'], ['1.weight', '1.bias'], ['3.weight']]),
    'two before one norm': (nn.Sequential(lin(5, 6), nn.ReLU(), lin(6, 6), ln(6), lin(6, 2)), (16, 5),
                            [['0.weight'], ['2.weight']]),
    'batch norm': (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False), nn.ReLU(),
                                 nn.Flatten(), lin(64, 2)), (6, 3, 6, 6), [['0.weight']]), # the bias is no group
    'group norm': (nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.GroupNorm(2, 4, affine=False), nn.Tanh(),
                                 nn.Flatten(), lin(64, 2)), (4, 3, 6, 6), [['0.weight']]),
    'residual': (PreActivation(), (4, 3, 6, 6),
                 [['stem.weight', 'c2.weight'], ['c1.weight'], ['c3.weight'], ['c4.weight', 'short.weight']]),
    'functional': (Functional(), (16, 6), [['w']]),
    'attention': (Attention(), (3, 4, 6), [['v.weight', 'e.weight']]), # (o, e) too, but they overlap
    'dropout': (nn.Sequential(lin(5, 9), nn.Dropout(.5), ln(9), lin(9, 2)), (16, 5), [['0.weight']]),
}
NONE = {
    'relu': (nn.Sequential(lin(5, 6), nn.ReLU(), lin(6, 6), nn.ReLU(), lin(6, 2)), (16, 5)),
    'relu with bias': (nn.Sequential(*[lin(6, 6, True), nn.ReLU()]*3, lin(6, 2, True)), (16, 6)),
    'norm without weights before': (nn.Sequential(ln(5), lin(5, 2)), (16, 5)),
    'nothing to train': (nn.Sequential(lin(5, 6), ln(6)).requires_grad_(False), (16, 5)),
    'bias added after': (nn.Sequential(lin(5, 6), nn.Tanh(), ln(6), lin(6, 2)), (16, 5)),
}

@pytest.mark.parametrize('net', NETS)
def test_groups_of_known_networks(net):
    model, shape, groups = NETS[net]
    found = invariant_groups(model, torch.zeros(shape))
    assert sorted(found) == sorted(groups) and found == invariant_groups(model, torch.zeros(shape), seed=7)

@pytest.mark.parametrize('net', NONE)
def test_networks_without_groups(net):
    model, shape = NONE[net]
    assert invariant_groups(model, torch.zeros(shape)) == []

def loss_and_grads(model, x, names, c):
    "A loss and the gradients of the named tensors, multiplied by c beforehand"
    model = bare_copy(model)
    params = dict(model.named_parameters())
    with torch.no_grad():
        for n in names: params[n].mul_(c)
    torch.manual_seed(1)  # dropout
    out = model(x)
    loss = (out.sin() + out**2).mean()
    ws = [params[n] for n in names]
    return loss.detach(), torch.autograd.grad(loss, ws), ws

@pytest.mark.parametrize('c', [.1, 3., 50.])
@pytest.mark.parametrize('net', NETS)
def test_loss_does_not_see_the_scale_of_a_group(net, c):
    model, shape, groups = NETS[net]
    x = torch.randn(shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    tol = 1e-4 if net == 'functional' else 1e-6  # the eps: 1e-7 there, 1e-14 against small variances elsewhere
    for names in groups:
        (l1, g1, w1), (l2, g2, _) = (loss_and_grads(model, x, names, k) for k in (1., c))
        torch.testing.assert_close(l1, l2, rtol=tol, atol=0)
        flat, w = torch.cat([g.flatten() for g in g1]), torch.cat([p.detach().flatten() for p in w1])
        assert (flat @ w).abs() <= tol*flat.norm()*w.norm()
        torch.testing.assert_close(torch.cat([g.flatten() for g in g2])*c, flat, rtol=tol, atol=tol*flat.norm().item())

def test_the_property_can_fail():
    for model, shape, names in [(*NETS['bias'][:2], ['0.weight']), (*NETS['residual'][:2], ['stem.weight']),
                                (*NETS['mlp'][:2], ['6.weight'])]:
        x = torch.randn(shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        (l1, g, w), (l2, *_) = (loss_and_grads(model, x, names, k) for k in (1., 3.))
        assert not torch.isclose(l1, l2, rtol=1e-3)
        assert (g[0]*w[0]).sum().abs() > 1e-3*g[0].norm()*w[0].norm()

def test_scaling_error_agrees():
    model, shape, groups = NETS['residual']
    x = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    assert all(scaling_error(model, x, g, 7.) < 1e-9 for g in groups)
    assert all(scaling_error(model, x, g[:1], 7.) > 1e-2 for g in groups if len(g) > 1)

def test_joint_products_cancel_without_vanishing():
    names, a, size = scale_products(NETS['bias'][0], torch.zeros(16, 5), 20)
    assert names[:2] == ['0.weight', '0.bias']
    assert (a[:, :2].sum(1).abs() < 1e-10*size[:, 0]).all() and (a[:, :2].abs() > 1e-6*size[:, :2]).all()

def test_many_layers_are_found_quickly():
    "Depth 24 with biases: 24 joint groups, and a plain net of depth 24 without any"
    body = [m for _ in range(24) for m in (lin(8, 8, True), ln(8), nn.ReLU())]
    assert len(invariant_groups(nn.Sequential(*body, lin(8, 1)), torch.zeros(8, 8))) == 24
    assert invariant_groups(nn.Sequential(*[lin(8, 8) for _ in range(24)]), torch.zeros(8, 8)) == []

@pytest.mark.parametrize('limit', [40, 100, 5000])
def test_the_smallest_set_seen_is_minimal(limit):
    "Columns a1..a5, b1..b5, spanned: sum(a) = sum(b). Minimal are the pairs (a, b), 0/1 are all unions of disjoint pairs"
    rows = torch.zeros(9, 10, dtype=torch.float64)
    for i in range(5): rows[i, i], rows[i, 5] = 1, 1  # a_i with b_1
    for i in range(4): rows[5 + i, 5], rows[5 + i, 6 + i] = -1, 1  # b_1 against another b
    sets = zero_one_sums(echelon(rows)[0], limit)
    assert (len(sets) == 251) == (limit == 5000) and len(min(sets, key=len)) == 2
    assert [len(s) for s in disjoint_sets(rows)] == [2]*5

def test_disjoint_sets_in_one_part():
    "{0,1}, {2,3}, {0,2}, {1,3} are all minimal; two that do not overlap are kept"
    ring = torch.tensor([[1., 1., 0., 0.], [0., 0., 1., 1.], [1., 0., 1., 0.]], dtype=torch.float64)
    mix = torch.randn(3, 3, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    assert disjoint_sets(mix @ ring) == [(0, 1), (2, 3)]

def test_a_deep_transformer_ends_at_the_limit_with_true_minimal_groups():
    "Each layer writes to the stream through its own pair, and could through others: thousands of vectors, one is taken"
    layer = nn.TransformerEncoderLayer(8, 2, 32, dropout=0., norm_first=True, batch_first=True)
    model = nn.TransformerEncoder(layer, 9, norm=nn.LayerNorm(8), enable_nested_tensor=False)
    model = nn.Sequential(lin(8, 8, True), model)
    torch.manual_seed(5)
    for p in model.parameters(): nn.init.normal_(p, std=.3)  # PyTorch's zero biases would hide their part
    groups = invariant_groups(model, torch.zeros(2, 3, 8))
    x = torch.randn(16, 5, 8, generator=torch.Generator().manual_seed(4))
    assert len(groups) == 1 and scaling_error(model, x, groups[0], 7.) < 1e-9
    assert all(scaling_error(model, x, set(groups[0]) - {n}, 7.) > 1e-6 for n in groups[0])

def test_model_and_global_randomness_are_untouched():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(.5), nn.Flatten(), lin(64, 2)).eval()
    before, state = copy.deepcopy(model.state_dict()), torch.random.get_rng_state()
    invariant_groups(model, torch.zeros(6, 3, 6, 6))
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in before.items())
    assert torch.equal(state, torch.random.get_rng_state()) and not model.training and model[1].eps == 1e-5

def test_inputs_may_be_drawn_or_be_integers():
    model, _, groups = NETS['mlp']
    assert invariant_groups(model, lambda rng: torch.randn(16, 32, generator=rng)) == groups
    words = nn.Sequential(nn.Embedding(7, 6), ln(6), lin(6, 2))
    assert invariant_groups(words, torch.arange(7)) == [['0.weight']]

def test_tied_weights_count_once():
    model = nn.Sequential(lin(6, 6), ln(6), lin(6, 6), ln(6), lin(6, 1))
    model[2].weight = model[0].weight
    assert invariant_groups(model, torch.zeros(16, 6)) == [['0.weight']]

def test_bad_calls():
    model, shape, _ = NETS['mlp']
    x = torch.zeros(shape)
    with pytest.raises(ValueError, match='n_probes must be >= 6 for 3 tensors, got 5'): invariant_groups(model, x, 5)
    with pytest.raises(TypeError, match='inputs must be a tensor or return one'): invariant_groups(model, [1.])
    with pytest.raises(ValueError, match='infinite or NaN'): invariant_groups(model, lambda rng: x + torch.nan)
    with pytest.raises(ValueError, match=r"no tensors \['9.weight'\]"): scaling_error(model, x, ['9.weight'], 2.)
