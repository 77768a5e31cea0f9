"""angle(a, b) = arccos <a,b>/(|a||b|); barrier = max over the path of error above the line between its ends."""
import numpy as np, pytest, torch
from understanding_lrs.probes.geometry import angle, barrier, path
from understanding_lrs.networks.mlp import MLPSpec
from understanding_lrs.core.seeds import stream
from understanding_lrs.training.networks import make_networks
from understanding_lrs.training.stacked import SyntheticTask, evaluate, stack_sets
from understanding_lrs.training.trainer import Schedule, Trainer
from understanding_lrs.data.synthetic import SyntheticConfig, make_data

def barriers(a, b, evaluate, points=11): # of K pairs; evaluate: weights (n, P) -> errors (n,)
    errors = evaluate(path(a, b, points)[1].flatten(0, 1)).view(points, len(a))
    return barrier(errors), errors

def test_angle_against_float64_numpy():
    a, b = stream('probe', 1).standard_normal((2, 7, 50))
    want = [np.arccos(x @ y/np.sqrt((x @ x)*(y @ y))) for x,y in zip(a, b)]
    np.testing.assert_allclose(angle(torch.tensor(a), torch.tensor(b)), want, rtol=1e-12)
    assert angle(torch.tensor(a), 3*torch.tensor(a)).max() < 1e-7

def test_double_well():
    "error 100 (1 - x^2)^2 between -1 and 1: 100 high, at any number of points that has the middle"
    well, x = lambda w: 100*(1 - w[:, 0].double()**2)**2, torch.tensor([[-1., 0.]])
    for points in (3, 11, 21): assert barriers(x, -x, well, points)[0].item() == pytest.approx(100)
    assert barriers(x, -x, well, 2)[0].item() == 0  # the ends alone see nothing: the test can fail

def test_barrier_is_never_negative_and_keeps_nan():
    errors = torch.from_numpy(stream('probe', 2).uniform(0, 100, (11, 40)))
    assert (barrier(errors) >= 0).all()
    assert barrier(torch.tensor([0., 100., 0., float('nan'), 0.])).isnan()

def test_a_scaled_copy_is_the_same_network():
    "the function does not see the norm, so the way to a scaled copy is flat"
    sets = stack_sets([make_data(SyntheticConfig(n_train=128, n_test=200), 1)])
    stack = Trainer(SyntheticTask(sets), make_networks(MLPSpec(), [1], readouts=[1], data=[0]), 1e-2, Schedule(200)).run().networks
    error = lambda w: 100 - evaluate(stack.repeat(len(w)).at_flat(w), sets.x_test, sets.y_test)[1]
    for scale in (1., .3): assert barriers(stack.flat(), scale*stack.flat(), error)[0].item() == 0
    other = make_networks(MLPSpec(), [2], readouts=[1], data=[0])
    assert barriers(stack.flat(), other.flat(), error)[1].std() > 0

def test_great_circle_and_chord_meet_in_the_middle():
    a, b = (torch.nn.functional.normalize(torch.from_numpy(v), dim=1) for v in stream('probe', 3).standard_normal((2, 4, 30)))
    (_, chord), (_, arc) = path(a, b, 5), path(a, b, 5, great_circle=True)
    assert angle(chord[2], arc[2]).max() < 1e-6 and angle(chord[1], arc[1]).min() > 1e-3
    torch.testing.assert_close(angle(arc[0], arc[1]), angle(a, b)/4)
    torch.testing.assert_close(path(a, a, 3, great_circle=True)[1][1], a)
