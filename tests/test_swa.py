"""A weight average is the uniform mean of the last k checkpoints, ending at the last step."""
import pytest, torch
from torch.optim.swa_utils import AveragedModel
from understanding_lrs.training import reference as training
from understanding_lrs.networks.mlp import MLPSpec
from understanding_lrs.training.networks import make_networks
from understanding_lrs.training.stacked import SyntheticTask, stack_sets
from understanding_lrs.training.trainer import Schedule, Trainer
from understanding_lrs.data.synthetic import SyntheticConfig, make_data

RAW = make_data(SyntheticConfig(n_train=64, n_test=50), 1)

def checkpoints(stage, every, steps):
    points = []
    for t in range(0, steps + 1, every): points.append(stage.run(t).networks.flat()[0].clone())
    return points

def stage(**kw): return Trainer(SyntheticTask(stack_sets([RAW])), make_networks(MLPSpec(), [1], readouts=[1], data=[0]), 2e-2, Schedule(90, swa_every=10, **kw))

def test_running_sums_are_the_mean_of_checkpoints():
    points, sums = checkpoints(stage(), 10, 90), stage(swa_k=(1, 2, 5, 10)).run().averages
    for k,w in sums.items(): assert torch.equal(w[0], training.average(points, k))
    assert torch.equal(sums[1][0], points[-1])
    assert not torch.equal(sums[2][0], sums[5][0])

def test_as_torch_averages():
    model = MLPSpec().build(1, 1)
    points = training.pretrain(model, RAW.x_train, RAW.y_train, 2e-2, training.Stage(90, 16, 1), ckpt_every=10)
    theirs = AveragedModel(model)
    for w in points[-5:]: theirs.update_parameters(model.load_flat_(w))
    torch.testing.assert_close(theirs.module.flat(), training.average(points, 5), rtol=1e-5, atol=1e-6)

def test_a_window_that_is_too_long_is_refused():
    with pytest.raises(ValueError, match="averaging 11 checkpoints needs 100 steps, got 90"): stage(swa_k=(11,))
