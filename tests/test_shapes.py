"""Samples of class k are uniform on region k (margin g kept), uninformative points are on the border, areas are exact.

The oracles below are written from the published table of shapes, not from the module's polygons.
"""
import numpy as np
import pytest

from understanding_lrs.core.seeds import stream
from understanding_lrs.data.synthetic import SHAPES, Circles, areas, place

S2, S10 = 2**.5, 10**.5
NAMES = 'circles sectors stripe diamond peaks tick cross union_jack'.split()

def inside(name, x, y, g):
    "(class 0, class 1): membership by the table's inequalities with margin `g`"
    a, b, m = abs(x), abs(y), g*S2
    if name == 'circles': return np.hypot(x, y) <= 1-g, (np.hypot(x, y) >= 1+g) & (np.hypot(x, y) <= 2)
    if name == 'sectors':
        ok = (a >= g) & (a <= 2+g) & (b >= g) & (b <= 2+g)
        return ok & (x*y > 0), ok & (x*y < 0)
    if name == 'stripe': return abs(y-x) <= 4-2*S2-m, abs(y-x) >= 4-2*S2+m
    if name == 'diamond': return a+b <= 2-m, a+b >= 2+m
    if name == 'peaks':
        r1, r2, r3, r4, m = -3*x-4, 3*x+2, 3*x-2, -3*x+4, g*S10
        return (((y >= r1+m) & (y >= r2+m)) | ((y <= r3-m) & (y <= r4-m)),
                np.where(y >= 3*x, (y <= r1-m) | (y <= r2-m), (y >= r3+m) | (y >= r4+m)))
    if name == 'tick': return (-2+m <= y-a) & (y-a <= -m), (y-a >= m) | (y-a <= -2-m)
    if name == 'cross': return (a <= 2-S2-g) | (b <= 2-S2-g), (a >= 2-S2+g) & (b >= 2-S2+g)
    return (((g <= y) & (y <= x-m)) | ((x <= -g) & (y >= -x+m)) | ((x+m <= y) & (y <= -g)) | ((x >= g) & (y <= -x-m)),
            ((x >= g) & (y >= x+m)) | ((g <= y) & (y <= -x-m)) | ((x <= -g) & (y <= x-m)) | ((-x+m <= y) & (y <= -g)))

def gap(name, p):
    "Perpendicular distance of points (n, 2) to the nearest line of the boundary"
    x, y = p.T
    lines = {'sectors': [(1, 0, 0), (0, 1, 0)], 'stripe': [(1, -1, s*(4-2*S2)) for s in (1, -1)],
             'diamond': [(s, t, 2) for s in (1, -1) for t in (1, -1)],
             'union_jack': [(1, 0, 0), (0, 1, 0), (1, -1, 0), (1, 1, 0)]}
    if name == 'circles': return abs(np.hypot(x, y) - 1)
    if name in lines: return np.min([abs(a*x + b*y - c)/np.hypot(a, b) for a, b, c in lines[name]], axis=0)
    corners = {'tick': [[(-2, 2), (0, 0), (2, 2)], [(-2, 0), (0, -2), (2, 0)]],
               'peaks': [[(-2, 2), (-1, -1), (0, 2)], [(0, -2), (1, 1), (2, -2)]],
               'cross': [[(2*s, (2-S2)*t), ((2-S2)*s, (2-S2)*t), ((2-S2)*s, 2*t)] for s in (1, -1) for t in (1, -1)]}
    def to(a, b):
        a, d = np.array(a, float), np.subtract(b, a)
        t = np.clip((p - a)@d/(d@d), 0, 1)[:, None]
        return np.linalg.norm(p - a - t*d, axis=1)
    return np.min([to(a, b) for c in corners[name] for a, b in zip(c, c[1:])], axis=0)

def rejection(name, k, n, g, rng):
    "Uniform points of class k: throw into the surrounding square, keep what the table accepts"
    found = np.empty((0, 2))
    while len(found) < n:
        p = rng.uniform(-1, 1, (4*n, 2))*(2 + g if name == 'sectors' else 2)
        found = np.concatenate([found, p[inside(name, *p.T, g)[k]]])
    return found[:n]

def differ(p, q, half, cells=9):
    "Two-sample chi-square over a grid of cells, in standard deviations above its mean"
    a, b = (np.histogram2d(*x.T, bins=cells, range=[[-half, half]]*2)[0].ravel() for x in (p, q))
    a, b = a[a + b > 10], b[a + b > 10]
    return (((a - b)**2/(a + b)).sum() - (len(a) - 1))/np.sqrt(2*(len(a) - 1))

def draw(name, k, n, g, seed=0): return SHAPES[name].sample(np.full(n, k), g, stream('probe', seed))

def test_the_eight_names(): assert list(SHAPES) == NAMES

@pytest.mark.parametrize('g', [0., .1, .3])
@pytest.mark.parametrize('name', NAMES)
def test_samples_obey_class_and_margin(name, g):
    y = stream('probe', 1).integers(0, 2, 20_000)
    p = SHAPES[name].sample(y, g, stream('probe', 2))
    assert p.shape == (20_000, 2) and p.dtype == np.float64
    for k in (0, 1): assert inside(name, *p[y == k].T, g - 1e-12)[k].all()
    assert abs(p).max() <= 2 + (g if name == 'sectors' else 0)
    if g:  # the margin is perpendicular, and tight in both classes; rule and label agree
        for k in (0, 1): assert g - 1e-12 <= gap(name, p[y == k]).min() < g + .02
        assert (SHAPES[name].classify(p) == y).all()

@pytest.mark.parametrize('name', NAMES)
def test_rule_is_the_table_without_margin(name):
    p = stream('probe', 3).uniform(-2, 2, (20_000, 2))
    zero, one = inside(name, *p.T, 0)
    assert (SHAPES[name].classify(p)[zero | one] == one[zero | one]).all()

@pytest.mark.parametrize('k', [0, 1])
@pytest.mark.parametrize('name', NAMES)
def test_samples_are_uniform(name, k):
    n, g = 20_000, .1
    assert abs(differ(draw(name, k, n, g), rejection(name, k, n, g, stream('probe', 4)), 2.1)) < 4

def test_uniformity_can_fail():
    class Careless(Circles):
        def place(self, k, u, margin): return self.ring(u[:, 1])*(1 - margin)*u[:, :1]  # no square root
    n, oracle = 20_000, rejection('circles', 0, 20_000, .1, stream('probe', 4))
    assert differ(Careless().sample(np.zeros(n), .1, stream('probe', 0)), oracle, 2.1) > 20
    tri = SHAPES['peaks'].filled(.1)[1]
    u = stream('probe', 0).random((n, 3))
    pick = (u[:, 0]*len(tri)).astype(int)  # triangles alike, not by area
    same = np.concatenate([place(tri[[i]], u[pick == i]) for i in range(len(tri))])
    assert differ(same, rejection('peaks', 1, n, .1, stream('probe', 4)), 2.1) > 20

@pytest.mark.parametrize('name', NAMES)
def test_pieces_do_not_overlap(name):
    "The areas of the pieces add up to the share of the square that the table accepts (grid of 2,000 x 2,000 midpoints)"
    if name == 'sectors':
        assert SHAPES[name].shares(.1) == pytest.approx((.5, .5))
        return
    x = (np.arange(2000) + .5)/500 - 2
    for g in (0., .1):
        grid = [m.mean() for m in inside(name, x[:, None], x[None], g)]
        assert SHAPES[name].shares(g) == pytest.approx(grid, abs=1e-3)

def test_published_shares():
    "The protocol's list; its numbers at g = 0.1 are estimates, good to about 6e-4"
    at_zero = dict.fromkeys('stripe diamond tick cross union_jack'.split(), (.5, .5)) | {'peaks': (.375, .625)}
    at_tenth = {'tick': (.4298, .4313), 'stripe': (.449, .451), 'diamond': (.432, .432), 'cross': (.427, .432),
                'union_jack': (.386, .387), 'peaks': (.300, .544)}
    for name, s in at_zero.items(): assert SHAPES[name].shares(0) == pytest.approx(s, abs=1e-12)
    for name, s in at_tenth.items(): assert SHAPES[name].shares(.1) == pytest.approx(s, abs=1e-3)
    assert SHAPES['tick'].shares(.1)[0] == pytest.approx((1 - .1*S2)/2, abs=1e-12)

def test_areas_of_triangles():
    assert areas(np.array([[[0, 0], [3, 0], [0, 2]], [[0, 0], [0, 2], [3, 0]]], float)).tolist() == [3, 3]

@pytest.mark.parametrize('name', NAMES)
def test_border_points_lie_on_the_boundary(name):
    p = SHAPES[name].border(5000, .1, stream('probe', 5))
    assert p.shape == (5000, 2) and gap(name, p).max() < 1e-12
    assert abs(p).max() <= 2 + (.1 if name == 'sectors' else 0)
    moved = p + .05*stream('probe', 6).standard_normal(p.shape)
    assert gap(name, moved).max() > .05  # the check can fail

def table_border(name, n, g, rng):
    "The border distribution in the words of the table"
    u, c, b = rng.uniform(-2, 2, n), 4-2*S2, 2-S2
    s, t = rng.choice([-1, 1], (2, n))
    if name == 'circles': return np.stack([np.cos(u*np.pi), np.sin(u*np.pi)], 1)
    if name == 'sectors':
        p = np.stack([rng.uniform(-2-g, 2+g, n), 0*u], 1)
        return np.where(s[:, None] > 0, p, p[:, ::-1])
    if name == 'stripe': x = s*rng.uniform(-2, 2-c, n); return np.stack([x, x + s*c], 1)
    if name == 'diamond': return np.stack([u, s*(2-abs(u))], 1)
    if name == 'peaks': return np.stack([u, np.select([u < -1, u < 0, u < 1], [-3*u-4, 3*u+2, 3*u-2], -3*u+4)], 1)
    if name == 'tick': return np.stack([u, abs(u) - (s > 0)*2], 1)
    if name == 'cross':
        p = np.stack([t*rng.uniform(b, 2, n), s*b], 1)
        return np.where(rng.random((n, 1)) < .5, p, p[:, ::-1])
    k = rng.integers(0, 4, n)
    return np.stack([np.where(k == 1, 0, u), np.select([k == 0, k == 1, k == 2], [0*u, u, u], -u)], 1)

@pytest.mark.parametrize('name', NAMES)
def test_border_distribution(name):
    p, q = SHAPES[name].border(20_000, .1, stream('probe', 7)), table_border(name, 20_000, .1, stream('probe', 8))
    assert abs(differ(p, q, 2.1)) < 4

@pytest.mark.parametrize('name', NAMES)
def test_boundary_lines_are_on_the_boundary(name):
    for line in SHAPES[name].boundary(): assert line.shape[1] == 2 and gap(name, line).max() < 1e-12

@pytest.mark.parametrize('name,g,k', [('circles', 1., 0), ('stripe', .83, 0), ('diamond', 1.42, 0), ('peaks', .95, 0),
                                      ('tick', .71, 0), ('cross', .6, 0), ('union_jack', .83, 0)])
def test_margin_without_room_is_refused(name, g, k):
    with pytest.raises(ValueError, match=f"leaves class {k} of '{name}' empty"):
        SHAPES[name].sample([0, 1], g, stream('probe', 0))

@pytest.mark.parametrize('g', [-.1, float('nan'), float('inf'), '0.1', None])
def test_margin_that_is_no_margin_is_refused(g):
    with pytest.raises(ValueError, match='margin must be a number >= 0'): SHAPES['tick'].check(g)

def test_labels_are_checked():
    with pytest.raises(ValueError, match='labels must be 0 or 1'): SHAPES['tick'].sample([0, 2], .1, stream('probe', 0))
