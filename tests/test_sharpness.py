"""sharpness = largest eigenvalue of the Riemannian Hessian of the unit sphere, against a dense one; filter norms have squares that sum to 1."""
import math, pytest, torch
import torch.nn.functional as F
from understanding_lrs.probes.filters import filter_norms
from understanding_lrs.probes.sharpness import SphereHessian, sharpness
from understanding_lrs.networks.convnet import ConvNetSpec
from understanding_lrs.networks.mlp import MLPSpec
from understanding_lrs.networks.resnet import ResNet18Spec

def setup(seed, scale=1.):
    "A scale-invariant MLP in float64, data, and its loss as a function of (params) or of one vector"
    net = MLPSpec(in_dim=6, width=5, eps=1e-12).build(seed, seed).double()
    params = net.weights()
    with torch.no_grad():
        for p in params: p *= scale
    g = torch.Generator().manual_seed(seed)
    x, y = torch.randn(64, 6, generator=g, dtype=torch.float64), (torch.rand(64, generator=g) > .5).double()
    names = net.spec.layer_names()
    def of(w):
        parts = {n: v.view_as(p) for n,v,p in zip(names, w.split([p.numel() for p in params]), params)}
        return F.binary_cross_entropy_with_logits(torch.func.functional_call(net, parts, x), y)
    return params, of, lambda: F.binary_cross_entropy_with_logits(net(x), y)

def dense(params, of):
    "Hessian on the unit sphere, straight from its definition"
    w = torch.cat([p.detach().flatten() for p in params])
    w = w/w.norm()
    h, g = torch.autograd.functional.hessian(of, w), torch.autograd.functional.jacobian(of, w)
    p = torch.eye(len(w), dtype=w.dtype) - torch.outer(w, w)
    return p@h@p - (g@w)*p

@pytest.mark.parametrize('seed,scale', [(1, 1.), (2, 28.), (3, .1)])
def test_largest_eigenvalue_is_that_of_the_dense_hessian(seed, scale):
    params, of, loss = setup(seed, scale)
    want = dense(params, of)
    top, average = sharpness(loss, params, directions=4000, tol=1e-8)
    assert top == pytest.approx(torch.linalg.eigvalsh(want)[-1].item(), rel=1e-5)
    spread = math.sqrt(2*(want**2).sum().item())/len(want)/math.sqrt(4000)
    assert abs(average - want.trace().item()/(len(want) - 1)) < 5*spread

def test_products_are_those_of_the_dense_hessian_and_have_no_normal_part():
    params, of, loss = setup(1, 3.)
    hessian = SphereHessian(loss, params)
    w, product = hessian.w, hessian.product
    v = torch.randn(len(w), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(product(v), dense(params, of)@v, rtol=1e-8, atol=1e-9)
    assert abs(product(v)@w) < 1e-9 and product(w).norm() < 1e-9

def test_repeats_bit_for_bit_and_leaves_no_gradients():
    params, _, loss = setup(1)
    assert sharpness(loss, params) == sharpness(loss, params) and all(p.grad is None for p in params)
    assert sharpness(loss, params, seed=1)[1] != sharpness(loss, params)[1]

def test_the_gradient_term_counts():
    "a loss that is no function of the direction: |w|^2/2 is flat on the sphere, though its Hessian is the identity"
    w = [torch.randn(9, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()]
    assert max(map(abs, sharpness(lambda: w[0]@w[0]/2, w))) < 1e-9

def test_all_tangents_curved_down():
    aim = F.normalize(torch.arange(1., 7.), dim=0)
    w = [(2*aim).requires_grad_()]
    assert sharpness(lambda: 3*(w[0]@aim)/w[0].norm(), w) == pytest.approx((-3, -3), rel=1e-4)

def test_a_picture_network_in_float32():
    "top eigenvalue by power iteration on products of finite differences of gradients"
    net = ConvNetSpec(2, 3, 8).build(1).train()
    g = torch.Generator().manual_seed(1)
    x, y = torch.randn(30, 3, 8, 8, generator=g), torch.arange(30)%3
    params = net.weights()
    top, average = sharpness(lambda: F.cross_entropy(net(x), y), params, tol=1e-4)
    double = ConvNetSpec(2, 3, 8).build(1).train().double()
    ps = double.weights()
    want = sharpness(lambda: F.cross_entropy(double(x.double()), y), ps, tol=1e-6)
    assert (top, average) == (pytest.approx(want[0], rel=1e-2), pytest.approx(want[1], rel=5e-2, abs=1e-2*want[0]))

def test_broken_networks_are_nan_and_zero_ones_refused():
    params, _, loss = setup(1)
    with torch.no_grad(): params[0][0, 0] = math.inf
    assert all(math.isnan(v) for v in sharpness(loss, params))
    with pytest.raises(ValueError, match='all zero'): sharpness(lambda: 0., [torch.zeros(3, requires_grad=True)])

def test_lanczos_that_does_not_converge_gives_its_best_value(monkeypatch):
    from scipy.sparse import linalg
    params, of, loss = setup(2)
    real, asked = linalg.eigsh, []
    def never(op, *args, **kw):
        asked.append(kw['tol'])
        if kw['tol'] < 1: raise linalg.ArpackNoConvergence('none', [], [])
        return real(op, *args, **kw)
    monkeypatch.setattr(linalg, 'eigsh', never)
    assert sharpness(loss, params)[0] == pytest.approx(torch.linalg.eigvalsh(dense(params, of))[-1].item(), rel=1e-2) and asked == [1e-2, 1.]

def test_filter_norms():
    spec = ResNet18Spec(4, 10, 8)
    nets = [spec.build(s) for s in (1, 2)]
    weights = [torch.stack([p.detach() for p in ps]) for ps in zip(*[n.weights() for n in nets])]
    assert sum(w[0].numel() for w in weights) == spec.n_conv_weights
    got = filter_norms(weights)
    assert got.shape == (2, spec.filters) and got.dtype == torch.float64
    torch.testing.assert_close((got**2).sum(1), torch.ones(2, dtype=torch.float64))
    joint = math.sqrt(sum(w[1].double().pow(2).sum().item() for w in weights))
    assert got[1, 0].item() == pytest.approx(weights[0][1, 0].double().norm().item()/joint)
    assert got.log10().mean().item() == pytest.approx(-math.log10(spec.filters)/2, abs=.05) # of a fresh network
    weights[3][0, 0] = math.nan
    assert filter_norms(weights)[0].isnan().all() and filter_norms(weights)[1].isfinite().all()
    with pytest.raises(ValueError, match='network 1 has only zeros'): filter_norms([w*torch.tensor([1., 0.]).view(2, 1, 1, 1, 1) for w in weights])

def test_without_scipy_it_is_the_same(monkeypatch):
    "as on a GPU: the plain algorithm, to its tolerance; also where all curvature is negative, and for a network"
    import sys
    params, of, loss = setup(2)
    with_scipy = sharpness(loss, params, tol=1e-6)
    net = ConvNetSpec(2, 3, 8).build(1).train()
    x, y = torch.randn(30, 3, 8, 8, generator=torch.Generator().manual_seed(1)), torch.arange(30)%3
    of_net = lambda **kw: sharpness(lambda: F.cross_entropy(net(x), y), net.weights(), **kw)
    network = of_net(tol=1e-3)
    monkeypatch.setitem(sys.modules, 'scipy.sparse.linalg', None) # the import fails
    assert sharpness(loss, params, tol=1e-6) == (pytest.approx(with_scipy[0], rel=1e-4), with_scipy[1])
    assert of_net(tol=1e-3) == (pytest.approx(network[0], rel=1e-2), pytest.approx(network[1], rel=1e-6))
    with torch.no_grad(): params[0][0, 0] = math.inf
    assert all(math.isnan(v) for v in sharpness(loss, params))
