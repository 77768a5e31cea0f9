"""Sparsity numbers of known accuracies; a network that is told one feature uses it."""
import pytest, torch
from understanding_lrs.features import dominance, effective_number, ranked, single_feature_accuracy
from understanding_lrs.models import MLPSpec
from understanding_lrs.stacked import Stage, evaluate, make_stack, stack_sets
from understanding_lrs.synthetic import SyntheticConfig, make_data, single_feature_sets

@pytest.mark.parametrize('used', [1, 2, 5, 16])
def test_effective_number_counts_equal_features(used):
    acc = torch.full((16,), 50.); acc[:used] = 73.
    assert effective_number(acc).item() == pytest.approx(used)

def test_effective_number_ignores_what_is_below_chance():
    assert effective_number(torch.tensor([80., 20., 20.])).item() == pytest.approx(1.)
    assert effective_number(torch.full((4,), 50.)).isnan()

def test_dominance_and_ranks():
    acc = torch.tensor([[50., 80., 65., 51.], [60., 60., 50., 50.]])
    assert dominance(acc).tolist() == [15., 0.]
    assert ranked(acc)[0].tolist() == [80., 65., 51., 50.]
    with pytest.raises(ValueError, match="two features"): dominance(torch.tensor([60.]))

def test_the_informative_feature_is_found():
    "only feature 3 tells the label in training: the sets must say so"
    config = SyntheticConfig(utility=tuple(1. if f == 3 else 0. for f in range(16)))
    stack = Stage(make_stack(MLPSpec(), [1], [1], [0]), stack_sets([make_data(config, 1)]), 1e-2, steps=3000).run().stack
    acc = single_feature_accuracy(stack, *single_feature_sets(config))
    assert acc.argmax() == 3 and dominance(acc) > 10
    assert acc[0, [f for f in range(16) if f != 3]].sub(50).abs().max() < 8

def test_equal_to_evaluating_each_set():
    config = SyntheticConfig(n_train=64, n_test=50)
    stack, (x, y) = make_stack(MLPSpec(), [1, 2], [1, 2], [0, 0]), single_feature_sets(config, 100)
    acc = single_feature_accuracy(stack, x, y)
    for f in range(16): assert torch.equal(acc[:, f], evaluate(stack, x[f:f + 1], y[f:f + 1])[1])
