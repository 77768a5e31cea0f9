"""Stacked training = reference training, at every step, in every stage; a broken network stays alone."""
import numpy as np, pytest, torch
from understanding_lrs.training import native
from understanding_lrs.training import reference as training
from understanding_lrs.networks.mlp import MLPSpec
from understanding_lrs.core.seeds import batch_order
from understanding_lrs.training.networks import make_networks
from understanding_lrs.training.stacked import SyntheticTask, evaluate, stack_sets, train_
from understanding_lrs.training.trainer import Schedule, Trainer
from understanding_lrs.data.synthetic import SyntheticConfig, make_data

ENGINES = ['torch', 'native'] if native.kernel() is not None else ['torch']
CONFIG = SyntheticConfig(n_train=128, n_test=200)
SHAPES = [MLPSpec(), MLPSpec(width=13, depth=1), MLPSpec(width=24, depth=3)]
SEEDS = [(1, 1, 0), (2, 1, 1), (2, 2, 1)]  # (train seed, readout seed, data set)

@pytest.fixture(scope='module')
def raw(): return [make_data(CONFIG, d) for d in (1, 2)]

def stack_of(spec):
    train_seeds, readouts, data = zip(*SEEDS)
    return make_networks(spec, list(train_seeds), readouts=list(readouts), data=list(data))

@pytest.mark.parametrize('engine', ENGINES)
@pytest.mark.parametrize('spec', SHAPES, ids=str)
@pytest.mark.parametrize('batch', [16, 10, 24])
def test_every_step(raw, engine, spec, batch):
    """rtol 1e-5 as promised for float32; the rates are below the threshold, where rounding does not grow. Ten steps, because at the
    eleventh one hidden unit of one sample lies within 1e-7 of the kink of its ReLU and may fall to either side."""
    stack, sets, rates = stack_of(spec).packed(), stack_sets(raw), (3e-4, 1e-3, 3e-3)
    models = [spec.build(t, r) for t,r,_ in SEEDS]
    for t in range(10):
        orders = [batch_order(s, 128, batch, t, t + 1) for s in (1, 2)]
        batches = native.Batches(sets.x_train, sets.y_train, torch.from_numpy(np.stack(orders)), torch.tensor([0, 1, 1]))
        train_(stack, batches, torch.tensor(rates), engine)
        for model,(seed,_,d),lr in zip(models, SEEDS, rates): training.train(model, raw[d].x_train, raw[d].y_train, orders[seed - 1], lr)
        torch.testing.assert_close(stack.flat(), torch.stack([m.flat() for m in models]), rtol=1e-5, atol=2e-6)
    for i,(model,(_,_,d)) in enumerate(zip(models, SEEDS)):
        mine = [v[i].item() for v in evaluate(stack, sets.x_test, sets.y_test, engine)]
        assert mine == pytest.approx(training.evaluate(model, raw[d].x_test, raw[d].y_test), rel=1e-4)

@pytest.mark.parametrize('engine', ENGINES)
@pytest.mark.parametrize('order', ['own', 'replay'])
def test_every_stage(raw, engine, order):
    "pre-train, average, fine-tune: the reference stores checkpoints, the stack sums"
    spec, sets, k = MLPSpec(), stack_sets(raw), (2, 5)
    pre = Trainer(SyntheticTask(sets, engine=engine), stack_of(spec), 1e-3, Schedule(60, swa_k=k, swa_every=10)).run()
    fine = Trainer(SyntheticTask(sets, engine=engine), pre.networks, 3e-4, Schedule(20, purpose=training.ORDERS[order])).run()
    for i,(t,r,d) in enumerate(SEEDS):
        model = spec.build(t, r)
        points = training.pretrain(model, raw[d].x_train, raw[d].y_train, 1e-3, training.Stage(60, 16, t), ckpt_every=10)
        for n in k: torch.testing.assert_close(pre.averages[n][i], training.average(points, n), rtol=1e-5, atol=2e-6)
        training.finetune(model, raw[d].x_train, raw[d].y_train, 3e-4, training.Stage(20, 16, t), order)
        torch.testing.assert_close(fine.networks.flat()[i], model.flat(), rtol=1e-5, atol=4e-6)

def test_the_orders_differ(raw):
    "so that the two parametrisations above are two tests"
    sets, start = stack_sets(raw), stack_of(MLPSpec())
    ends = [Trainer(SyntheticTask(sets), start, 1e-3, Schedule(20, purpose=p)).run().networks.flat() for p in training.ORDERS.values()]
    assert not torch.allclose(*ends, atol=1e-4)

@pytest.mark.parametrize('engine', ENGINES)
def test_a_broken_network_stays_alone(raw, engine):
    sets, stack = stack_sets(raw), stack_of(MLPSpec())
    whole = Trainer(SyntheticTask(sets, engine=engine), stack, 1e-2, Schedule(30)).run()
    hurt = stack.packed()
    hurt.flat()[1, 5] = float('nan')
    broken = Trainer(SyntheticTask(sets, engine=engine), hurt, 1e-2, Schedule(30)).run()
    assert broken.networks.flat()[1].isnan().all() and broken.curves[-1][0, 1].isnan()
    assert torch.equal(broken.networks.flat()[[0, 2]], whole.networks.flat()[[0, 2]])

@pytest.mark.skipif(len(ENGINES) < 2, reason="no C compiler")
def test_a_network_does_not_see_its_stack(raw):
    "bitwise: alone, in a stack, on two threads"
    sets, stack = stack_sets(raw), stack_of(MLPSpec())
    whole = Trainer(SyntheticTask(sets), stack, 3e-2, Schedule(50)).run().networks.flat()
    for i in range(3): assert torch.equal(Trainer(SyntheticTask(sets), stack[i:i + 1], 3e-2, Schedule(50)).run().networks.flat()[0], whole[i])
    assert torch.equal(Trainer(SyntheticTask(sets, threads=2), stack.repeat(3), 3e-2, Schedule(50)).run().networks.flat()[3:6], whole)

def test_the_comparison_can_fail(raw):
    "another readout, another path"
    sets, stack = stack_sets(raw), stack_of(MLPSpec())
    wrong = stack.at({'readout.weight': stack.state['readout.weight'].roll(1, 0)})
    a, b = (Trainer(SyntheticTask(sets), s, 1e-3, Schedule(5)).run().networks.flat() for s in (stack, wrong))
    assert not torch.allclose(a, b, rtol=1e-5, atol=2e-6)
