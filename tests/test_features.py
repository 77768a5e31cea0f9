"""Sparsity numbers of known accuracies; a network that is told one feature uses it."""
import numpy as np, pytest, torch
from understanding_lrs.probes.features import dominance, effective_number, single_feature_accuracy
from understanding_lrs.networks.mlp import MLPSpec
from understanding_lrs.analysis.variance import variance_components, variance_shares
from understanding_lrs.core.seeds import stream
from understanding_lrs.training.networks import make_networks
from understanding_lrs.training.stacked import SyntheticTask, evaluate, stack_sets
from understanding_lrs.training.trainer import Schedule, Trainer
from understanding_lrs.data.synthetic import SyntheticConfig, make_data, single_feature_sets

@pytest.mark.parametrize('used', [1, 2, 5, 16])
def test_effective_number_counts_equal_features(used):
    acc = torch.full((16,), 50.); acc[:used] = 73.
    assert effective_number(acc).item() == pytest.approx(used)

def test_effective_number_ignores_what_is_below_chance():
    assert effective_number(torch.tensor([80., 20., 20.])).item() == pytest.approx(1.)
    assert effective_number(torch.full((4,), 50.)).isnan()

def test_dominance():
    acc = torch.tensor([[50., 80., 65., 51.], [60., 60., 50., 50.]])
    assert dominance(acc).tolist() == [15., 0.]
    with pytest.raises(ValueError, match="two features"): dominance(torch.tensor([60.]))

def test_the_informative_feature_is_found():
    "only feature 3 tells the label in training: the sets must say so"
    config = SyntheticConfig(utility=tuple(1. if f == 3 else 0. for f in range(16)))
    stack = Trainer(SyntheticTask(stack_sets([make_data(config, 1)])), make_networks(MLPSpec(), [1], readouts=[1], data=[0]), 1e-2, Schedule(3000)).run().networks
    acc = single_feature_accuracy(stack, *single_feature_sets(config))
    assert acc.argmax() == 3 and dominance(acc) > 10
    assert acc[0, [f for f in range(16) if f != 3]].sub(50).abs().max() < 8

def test_equal_to_evaluating_each_set():
    config = SyntheticConfig(n_train=64, n_test=50)
    stack, (x, y) = make_networks(MLPSpec(), [1, 2], readouts=[1, 2], data=[0, 0]), single_feature_sets(config, 100)
    acc = single_feature_accuracy(stack, x, y)
    for f in range(16): assert torch.equal(acc[:, f], evaluate(stack, x[f:f + 1], y[f:f + 1])[1])

def crossed(data, init, readout, rest, seed, n=(12, 12, 12)):
    rng = stream('probe', seed)
    parts = [s*rng.standard_normal([m if i == j else 1 for j,m in enumerate(n)]) for i,s in enumerate((data, init, readout))]
    return sum(parts) + rest*rng.standard_normal(n)

def test_variance_components_are_unbiased():
    "mean over 200 designs of the true components 4, 0, 1, 0, 0, 0, 2.25"
    found = [variance_components(crossed(2, 0, 1, 1.5, s)) for s in range(200)]
    mean = {k: np.mean([f[k] for f in found]) for k in found[0]}
    for k,want in dict(data=4, init=0, readout=1, rest=2.25).items(): assert mean[k] == pytest.approx(want, abs=.4), k
    assert all(abs(v) < .1 for k,v in mean.items() if ' x ' in k)

def test_variance_shares_cover_the_truth():
    "95 % intervals of the jackknife hold the true share in most of 40 designs, and not by being endless"
    shares = [variance_shares(crossed(1, 0, 2, 1, s))['readout'] for s in range(40)]
    truth = 100*4/6
    assert np.mean([lo <= truth <= hi for _,lo,hi in shares]) >= .8
    assert np.median([hi - lo for _,lo,hi in shares]) < 80

def test_an_incomplete_design_is_refused():
    cube = crossed(1, 1, 1, 1, 0); cube[0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="1 missing"): variance_components(cube)
