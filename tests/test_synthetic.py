"""Data are a function of (config, data seed): exact utility counts, features independent given the label, noise only
in training."""
import numpy as np
import pytest
import torch

from understanding_lrs.core.seeds import stream
from understanding_lrs.data.synthetic import SHAPES, SyntheticConfig, make_data, single_feature_sets, useful_samples

GOLDEN_Y = [0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0]
GOLDEN_X = [0.2264441, -0.1738497, 0.6988911, 0.5186582, 0.7915722, 0.3306719]

def useful(config, x, y):
    "(F, n) bool: the feature's point is off the tick's border, and where the rule puts its label"
    found = []
    for i in config.feature_ids:
        d = x[:, i + 1] - x[:, i].abs()
        found.append(torch.minimum(d.abs(), (d + 2).abs()) > 1e-3)
        right = torch.tensor(SHAPES['tick'].classify(x[:, i:i+2].double())) == y
        assert (right | ~found[-1]).all()
    return torch.stack(found)

def test_defaults_are_the_papers():
    d = make_data(SyntheticConfig(), 1)
    assert [t.shape for t in d] == [(512, 32), (512,), (2000, 32), (2000,)]
    assert {t.dtype for t in d} == {torch.float32} and all(torch.isfinite(t).all() for t in d)
    assert set(d.y_train.tolist()) == {0., 1.} and useful(SyntheticConfig(), d.x_train, d.y_train).all()

def test_same_seed_same_bits_other_seed_other_data():
    a, b, c = (make_data(SyntheticConfig(), s) for s in (1, 1, 2))
    assert all(torch.equal(p, q) for p, q in zip(a, b))
    assert not torch.equal(a.x_train, c.x_train) and not torch.equal(a.y_test[:512], a.y_train)

def test_golden_values():
    "A change here moves every result of the synthetic study: bump `numerics_version`"
    d = make_data(SyntheticConfig(n_train=8, n_test=4), 3)
    assert d.y_train.tolist() == GOLDEN_Y
    torch.testing.assert_close(d.x_train[0, :6], torch.tensor(GOLDEN_X), rtol=1e-6, atol=0)

@pytest.mark.parametrize('shape', SHAPES)
def test_every_shape_makes_data(shape):
    c = SyntheticConfig(shape=shape, n_train=300, n_test=300)
    d = make_data(c, 1)
    for i in c.feature_ids: assert (SHAPES[shape].classify(d.x_train[:, i:i+2]) == d.y_train.numpy()).all()

def test_utility_counts_are_exact():
    p = (1., .75, .5, .3335, 0.)
    c = SyntheticConfig(feature_ids=(0, 2, 4, 6, 8), in_dim=10, utility=p)
    d = make_data(c, 4)
    for x, y in (d[:2], d[2:]): assert useful(c, x, y).sum(1).tolist() == [int(q*len(y)) for q in p]
    train, test = useful(c, *d[:2]), useful(c, *d[2:])
    assert not torch.equal(train[2], test[2, :512])  # separate subsets

def test_useful_subsets_are_independent_of_each_other_and_of_the_label():
    c, n = SyntheticConfig(utility=.5), 8000
    u = np.vstack([useful_samples(c, n, stream('probe', 0)), stream('probe', 1).integers(0, 2, n)])
    r = np.corrcoef(u)[~np.eye(17, dtype=bool)]
    assert abs(r).max() < 5/np.sqrt(n)  # 5 standard errors

def test_features_are_independent_given_the_label():
    d = make_data(SyntheticConfig(n_test=8000), 5)
    for k in (0, 1):
        x = d.x_test[d.y_test == k].numpy()
        r = np.corrcoef(np.hstack([x, np.abs(x)]).T)
        i, j = np.indices(r.shape)%32//2
        assert abs(r[i != j]).max() < 5.5/np.sqrt(len(x))
    x = d.x_test.numpy()  # not given the label they do depend on each other: the check can fail
    low = x[:, 1::2] - abs(x[:, ::2])
    assert np.corrcoef((abs(low + 1) > 1).T).min() > .99

def test_labels_are_fair():
    "Two-sided 5 sigma"
    y = make_data(SyntheticConfig(n_test=40_000), 6).y_test
    assert abs(y.mean() - .5) < 5*.5/200

def test_border_points_do_not_know_the_label():
    c = SyntheticConfig(utility=0., n_test=20_000)
    d = make_data(c, 7)
    assert not useful(c, d.x_test, d.y_test).any()
    gap = d.x_test[d.y_test == 1].mean(0) - d.x_test[d.y_test == 0].mean(0)
    assert gap.abs().max() < 5*1.2/np.sqrt(5000)

def test_free_coordinates_are_normal():
    c = SyntheticConfig(feature_ids=(4,), in_dim=8, n_test=20_000)
    x = make_data(c, 8).x_test[:, [0, 1, 2, 3, 6, 7]]
    assert x.mean(0).abs().max() < 5/np.sqrt(20_000) and (x.std(0) - 1).abs().max() < .03

def test_one_utility_moves_one_feature():
    a, b = make_data(SyntheticConfig(), 9), make_data(SyntheticConfig(utility=(.5,) + (1.,)*15), 9)
    assert torch.equal(a.y_train, b.y_train) and torch.equal(a.x_train[:, 2:], b.x_train[:, 2:])
    assert (a.x_train[:, :2] != b.x_train[:, :2]).any(1).sum() == 256

@pytest.mark.parametrize('noise', [.1, .3, 1.])
def test_noise_swaps_equal_numbers_in_training_only(noise):
    clean, noisy = (make_data(SyntheticConfig(noise=q), 10) for q in (0., noise))
    assert torch.equal(clean.x_test, noisy.x_test) and torch.equal(clean.y_train, noisy.y_train)
    m = int(noise*min((clean.y_train == k).sum().item() for k in (0, 1)))
    moved = torch.stack([(clean.x_train[:, i:i+2] != noisy.x_train[:, i:i+2]).any(1) for i in range(0, 32, 2)])
    for k in (0, 1): assert (moved[:, clean.y_train == k].sum(1) == m).all()
    for i in range(0, 32, 2):  # the same points, differently dealt
        rows = [sorted(map(tuple, x[:, i:i+2].tolist())) for x in (clean.x_train, noisy.x_train)]
        assert rows[0] == rows[1]
    if noise < 1: assert not torch.equal(moved[0], moved[1])

def test_joint_mode():
    p = (.5, .3, .2)
    c = SyntheticConfig(feature_ids=(0, 2), in_dim=4, joint=p, n_test=20_000)
    u = useful(c, *make_data(c, 11)[2:])
    share = [(u[0] & u[1]), (u[0] & ~u[1]), (~u[0] & u[1]), (~u[0] & ~u[1])]
    for s, q in zip(share, (*p, 0)): assert abs(s.double().mean() - q) <= 5*np.sqrt(q*(1-q)/20_000)

def test_single_feature_sets():
    c = SyntheticConfig()
    x, y = single_feature_sets(c, n=500)
    assert x.shape == (16, 500, 32) and y.shape == (16, 500)
    for f in range(16): assert useful(c, x[f], y[f]).sum(1).tolist() == [500*(g == f) for g in range(16)]
    assert len({tuple(r.tolist()) for r in y}) == 16  # each set has its own labels

def test_single_feature_sets_ignore_utility_noise_and_sizes():
    other = SyntheticConfig(utility=.2, noise=.1, n_train=9)
    (x, y), (x2, y2) = (single_feature_sets(c, 50) for c in (SyntheticConfig(), other))
    assert torch.equal(x, x2) and torch.equal(y, y2)

def test_lists_become_tuples_and_configs_compare():
    a, b = (SyntheticConfig(feature_ids=f, in_dim=4, utility=u) for f, u in (([0, 2], [1, 0]), ((0, 2), (1., 0.))))
    assert a == b and hash(a) == hash(b)

@pytest.mark.parametrize('bad,line', [
    (dict(shape='tik'), "unknown shape 'tik'; did you mean 'tick'"),
    (dict(shape='zzz'), "unknown shape 'zzz'; known: circles"),
    (dict(feature_ids=(0, 3)), r"feature ids \[3\] are odd"),
    (dict(feature_ids=(0, 2, 0)), r"feature ids \[0\] are used twice"),
    (dict(feature_ids=(0, 32)), r"feature ids \[32\] are outside the 32 inputs"),
    (dict(feature_ids=(4,), in_dim=5), r"feature ids \[4\] are outside the 5 inputs"),
    (dict(feature_ids=()), 'feature_ids is empty'),
    (dict(feature_ids=(-2,)), 'a feature id must be an integer >= 0, got -2'),
    (dict(feature_ids=(.5,)), 'a feature id must be an integer >= 0, got 0.5'),
    (dict(utility=1.2), r'utility must be a number in \[0, 1\], got 1.2'),
    (dict(utility=float('nan')), 'utility must be a number'),
    (dict(utility='high'), "got 'high'"),
    (dict(utility=(1.,)*15 + (-.1,)), 'got -0.1'),
    (dict(utility=(1., 1.)), 'utility needs one number or 16, one a feature; got 2'),
    (dict(noise=-.1), r'noise must be a number in \[0, 1\], got -0.1'),
    (dict(margin=-1), 'margin must be a number >= 0, got -1'),
    (dict(margin=.8), "margin 0.8 leaves class 0 of 'tick' empty"),
    (dict(n_train=0), 'n_train must be an integer >= 1, got 0'),
    (dict(n_test=2.5), 'n_test must be an integer >= 1, got 2.5'),
    (dict(in_dim=1), 'in_dim must be an integer >= 2'),
    (dict(joint=(.5, .3, .2)), 'joint is for exactly two features, got 16'),
    (dict(joint=(.5, .5), feature_ids=(0, 2)), 'joint needs three probabilities'),
    (dict(joint=(.5, .3, .1), feature_ids=(0, 2)), 'joint needs three probabilities with sum 1'),
    (dict(joint=(.5, .3, .2), feature_ids=(0, 2), utility=.5), 'joint replaces utility'),
])
def test_bad_input_is_one_clear_line(bad, line):
    with pytest.raises(ValueError, match=line) as e: SyntheticConfig(**bad)
    assert '\n' not in str(e.value)

def test_bad_calls():
    with pytest.raises(ValueError, match='train_data'): make_data(SyntheticConfig(), -1)
    with pytest.raises(ValueError, match='n must be an integer >= 1'): single_feature_sets(SyntheticConfig(), 0)
