"""Training on pictures: C kernel = batched PyTorch = plain loop; the norm is kept; stages resume bit for bit; statistics and averages are torch's."""
import math
from dataclasses import replace
import numpy as np, pandas as pd, pytest, torch
from torch.optim.swa_utils import AveragedModel, update_bn
from understanding_lrs.training import native_conv
from understanding_lrs.data.images import Images
from understanding_lrs.data.loading import load_images
from understanding_lrs.data.channels import channel_stats
from understanding_lrs.networks.convnet import ConvNetSpec
from understanding_lrs.networks.resnet import ResNet18Spec
from understanding_lrs.training.image_epochs import EpochConfig, EvalConfig, epoch_, evaluate_nets
from understanding_lrs.training.image_reference import evaluate_net, reestimate_, train_epoch
from understanding_lrs.training.array_task import ArrayTask
from understanding_lrs.training.image_data import numerics, resident
from understanding_lrs.training.image_lanes import load_network
from understanding_lrs.training.networks import make_networks
from understanding_lrs.training.trainer import Schedule, Trainer
from understanding_lrs.core.errors import InputError, OutOfTime
from understanding_lrs.runs.store import Run
from understanding_lrs.core.seeds import epoch_order
from understanding_lrs.core.sphere import ProjectedSGD, elr_to_lr, project_

from understanding_lrs.analysis.regimes import network_regimes
from understanding_lrs.studies.registry import STUDIES, protocols, resolved
from understanding_lrs.studies.trial import live
from understanding_lrs.analysis.summaries import summary, verdict
from understanding_lrs.analysis.tables import on_its_data, select

BATCH, QUIET = 24, 1e-4 # a batch that is no multiple of 16; a rate at which rounding does not grow
CONVNET, RESNET = ConvNetSpec(4, 10, 8), ResNet18Spec(2, 10, 8)
needs_kernel = pytest.mark.skipif(native_conv.conv_kernel() is None, reason='no C compiler')

@pytest.fixture(scope='module')
def data():
    d = load_images('digits')
    d = replace(d, x_train=d.x_train[:140], y_train=d.y_train[:140])
    return resident(d, *channel_stats(d.x_train))

def close(a, b): torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
def rates(spec, *elrs): return torch.tensor([elr_to_lr(e, spec.default_radius()) for e in elrs])

def plainly(spec, data, seed, elr, epochs=1):
    "one network by the reference"
    net, rho = spec.build(seed), spec.default_radius()
    project_(net.weights(), rho)
    opt = ProjectedSGD(net.weights(), lr=elr_to_lr(elr, rho), rho=rho)
    x = data.inputs(data.x_train)
    for e in range(epochs): out = train_epoch(net, x, data.y_train, epoch_order(seed, len(x), e), BATCH, opt)
    return net, out

def near(a, b, start=0.):
    "equal up to a few pooling windows or ReLUs that rounding decides otherwise: 3 % of the way from the start"
    assert (a - b).norm() <= .03*(b - start).norm() + 1e-6

@needs_kernel
@pytest.mark.parametrize('size, width', [(8, 4), (16, 8)])
@pytest.mark.parametrize('batch', [24, 128])
def test_kernel_is_torch(data, size, width, batch):
    "an epoch, then both kinds of evaluation, at every batch and size; the last batch is incomplete"
    rng = torch.Generator().manual_seed(0)
    noise = lambda x: torch.randint(0, 256, (len(x), 3, 16, 16), generator=rng, dtype=torch.uint8)
    if size == 16: data = replace(data, x_train=noise(data.x_train), x_test=noise(data.x_test))
    spec = ConvNetSpec(width, 10, size)
    first, *two = [make_networks(spec, [1, 2], spec.default_radius()) for _ in range(3)]
    for a,b in zip(*(epoch_(n, data, 0, rates(spec, QUIET, 2*QUIET), EpochConfig(spec.default_radius(), batch, engine=e)) for n,e in zip(two, ('native', 'torch')))):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
    for name in spec.layer_names(): near(two[0].state[name], two[1].state[name], first.state[name])
    two[1] = two[1].at({k: v.clone() for k,v in two[0].state.items()}) # from here on, from the same point
    for own in (False, True, False):
        for a,b in zip(*(evaluate_nets(n, data.x_test, data.y_test, data, EvalConfig(100, own, engine=e)) for n,e in zip(two, ('native', 'torch')))): close(a, b)
        for name in two[0].state: close(two[0].state[name], two[1].state[name])

@pytest.mark.parametrize('spec', [CONVNET, RESNET], ids=lambda s: s.arch)
def test_stack_is_the_plain_loop(data, spec):
    nets = make_networks(spec, [3, 4], spec.default_radius())
    for e in range(2): loss, acc = epoch_(nets, data, e, rates(spec, QUIET, 2*QUIET), EpochConfig(spec.default_radius(), BATCH))
    for k,(seed,elr) in enumerate([(3, QUIET), (4, 2*QUIET)]):
        net, out = plainly(spec, data, seed, elr, 2)
        close(torch.tensor([loss[k], acc[k]]).double(), torch.tensor(out).double())
        close(nets.flat()[k], net.flat())
        said = evaluate_nets(nets, data.x_test, data.y_test, data)
        close(torch.stack(said)[:, k], torch.tensor(evaluate_net(net, data.inputs(data.x_test), data.y_test)).double())

def test_the_comparison_can_fail(data):
    nets = make_networks(CONVNET, [3], CONVNET.default_radius())
    epoch_(nets, data, 1, rates(CONVNET, QUIET), EpochConfig(CONVNET.default_radius(), BATCH))  # another epoch's order
    with pytest.raises(AssertionError): close(nets.flat()[0], plainly(CONVNET, data, 3, QUIET)[0].flat())

@pytest.mark.parametrize('engine', [pytest.param('native', marks=needs_kernel), 'torch'])
def test_the_norm_is_kept(data, engine):
    "over many steps, also where training bounces; PyTorch trains the ResNet"
    spec, steps = (CONVNET, 1000) if engine == 'native' else (RESNET, 300)
    rho, few = spec.default_radius(), replace(data, x_train=data.x_train[:8], y_train=data.y_train[:8])
    nets = make_networks(spec, [1], rho)
    for e in range(steps): epoch_(nets, few, e, rates(spec, 3e-2), EpochConfig(rho, 8, engine=engine))
    assert nets.flat().double().norm().item() == pytest.approx(rho, rel=1e-6)

@needs_kernel
def test_a_network_is_alone(data):
    "the same bits beside other networks and with other threads; NaN stays where it is"
    rho, lr = CONVNET.default_radius(), rates(CONVNET, 1e-2, 1e-2, 1e-2)
    one, three, sick = (make_networks(CONVNET, s, rho) for s in ([2], [1, 2, 3], [1, 2, 3]))
    sick.state['convs.0.weight'][0] = math.nan
    epoch_(one, data, 0, lr[:1], EpochConfig(rho, BATCH))
    loss = [epoch_(n, data, 0, lr, EpochConfig(rho, BATCH, threads=t))[0] for n,t in ((three, 2), (sick, 1))][1]
    for name,v in one.state.items(): assert torch.equal(v[0], three.state[name][1]) and torch.equal(v[0], sick.state[name][1])
    assert loss.isnan().tolist() == [True, False, False]

@pytest.mark.parametrize('engine', [pytest.param('native', marks=needs_kernel), 'torch'])
def test_stages_resume_bit_for_bit(data, engine):
    "cut after every epoch"
    rho, lr = CONVNET.default_radius(), rates(CONVNET, 1e-2, 1e-3)
    def stage(): return Trainer(ArrayTask(data, rho, BATCH, engine=engine), make_networks(CONVNET, [1, 2], rho), lr, Schedule(3, swa_k=(1, 2, 4)))
    whole = stage().run().state()
    for cut in range(4):
        again = stage().load({k: v.clone() for k,v in stage().run(until=cut).state().items()} if cut else stage().state()).run().state()
        for k,v in whole.items(): assert torch.equal(v.nan_to_num(-1), again[k].nan_to_num(-1)), (cut, k)
    assert list(stage().load(dict(reversed(whole.items()))).averages) == [1, 2, 4] # a file may give its tensors in any order

def test_statistics_are_torchs(data):
    net, _ = plainly(RESNET, data, 1, QUIET)
    other, x = RESNET.build(1), data.inputs(data.x_train)
    other.load_state_dict(net.state_dict())
    update_bn(x.split(BATCH), other)
    reestimate_(net, x, BATCH)
    for (n,a),b in zip(net.named_buffers(), other.buffers()): torch.testing.assert_close(a, b, msg=n)
    nets = make_networks(RESNET, [1], RESNET.default_radius())
    nets = nets.at_flat(net.flat()[None])
    evaluate_nets(nets, data.x_train, data.y_train, data, EvalConfig(BATCH, own=True))
    for n,v in nets.state.items(): close(v[0], net.state_dict()[n])

def test_averages_are_torchs(data):
    rho = CONVNET.default_radius()
    st, swa = Trainer(ArrayTask(data, rho, BATCH), make_networks(CONVNET, [5], rho), rates(CONVNET, 1e-2), Schedule(4, swa_k=(3, 5))), None
    for e in range(5):
        st.run(until=e) if e else None
        swa = AveragedModel(load_network(st.networks, 0)) if swa is None else swa
        swa.update_parameters(load_network(st.networks, 0))
        if e + 1 in (3, 5): close(st.averages[e + 1][0], swa.module.flat())

def test_resident_pictures_are_the_loaders(data):
    "the same floats as a DataLoader with the usual transforms gives, in the same order"
    order = epoch_order(1, len(data.x_train), 0)
    class Listed(torch.utils.data.Dataset):
        def __len__(self): return len(order)
        def __getitem__(self, i):
            x = data.x_train[order[i]].float()/255
            return (x - torch.tensor(data.mean)[:, None, None])/torch.tensor(data.std)[:, None, None], data.y_train[order[i]]
    for (x, y), b in zip(torch.utils.data.DataLoader(Listed(), BATCH), torch.as_tensor(order).split(BATCH), strict=True):
        torch.testing.assert_close(data.inputs(data.x_train[b]), x); assert torch.equal(data.y_train[b], y)

def test_bf16_runs_and_rounds(data):
    spec = replace(RESNET, width=8)
    rho, nets = spec.default_radius(), [make_networks(spec, [1], spec.default_radius()) for _ in range(2)]
    loss = [epoch_(n, data, 0, rates(spec, 1e-8), EpochConfig(rho, BATCH, precision=p))[0].item() for n,p in zip(nets, ('fp32', 'bf16'))]
    assert loss[0] != loss[1] and loss[0] == pytest.approx(loss[1], rel=.05)
    assert all(v.dtype == torch.float32 for v in nets[1].state.values())

def test_numerics_come_back():
    before = torch.backends.cudnn.allow_tf32
    with numerics('fp32'): assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cudnn.allow_tf32 == before

@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU')
def test_the_gpu_agrees(data):
    rho = RESNET.default_radius()
    there = resident(Images('digits', tuple('0123456789'), *(getattr(data, n) for n in ('x_train', 'y_train', 'x_test', 'y_test'))), data.mean, data.std, 'cuda')
    a, b = make_networks(RESNET, [1], rho), make_networks(RESNET, [1], rho).to('cuda')
    close(epoch_(a, data, 0, rates(RESNET, QUIET), EpochConfig(rho, BATCH))[0], epoch_(b, there, 0, rates(RESNET, QUIET), EpochConfig(rho, BATCH))[0])

def smoke(**kw): return resolved(protocols('convnetsi32_cifar10', 'smoke', overrides=kw))[0]

@pytest.mark.parametrize('study, kw', [('convnetsi32_cifar10', {}), ('resnet18si_cifar10_two_stage', {}), ('resnet18si_cifar10_basin', {}),
                                       ('resnet18si_cifar10_boundary', dict(stop_loss=1.))], ids=str)
def test_a_stopped_run_goes_on_to_the_same_tables(study, kw, tmp_path):
    "in every stage: averaging, a second rate, several batch orders, an early end"
    p = resolved(protocols(study, 'smoke', plrs=[1e-3], overrides=kw))[-1]
    whole, run, stops = live(p, Run(tmp_path/'a', p)), Run(tmp_path/'b', p), 0
    while run.state().kind != 'done':
        try: live(p, run, time_limit=1e-3)
        except OutOfTime: stops += 1
    assert stops > 3
    for t in run.tables(): assert (run.folder/f'{t}.csv').read_bytes() == (whole.run.folder/f'{t}.csv').read_bytes(), t

def test_tables_of_a_run(tmp_path):
    trial = live(smoke())
    m, g = trial.tables['metrics'], trial.tables['geometry']
    assert {'train_loss', 'train_acc', 'test_loss', 'test_acc', 'test_acc_tail', 'test_acc_tail_std', 'train_loss_tail'} <= set(m[m.stage == 'pretrain'].metric)
    assert set(m.data) == {'digits'} and set(m.train_seed) == {1, 2} and m.data_seed.isna().all() and m[~m.metric.str.contains('converge|_tail_std') & ~m.band.notna()].value.notna().all()
    assert m[m.metric.str.endswith('_tail_std')].value.isna().all(), 'a tail of one look has no noise'
    assert set(g.pair) == {'low_high', 'swa5_high', 'swa5_low'} and (g[g.metric.str.contains('barrier')].value >= 0).all()
    n = trial.tables['norms']
    squares = n[n.metric == 'weight_norm'].assign(value=lambda d: d.value**2).groupby(['stage', 'flr', 'swa_k', 'train_seed'], dropna=False).value.sum()
    kept = squares[squares.index.get_level_values('stage') != 'average']**.5
    assert kept.tolist() == pytest.approx([trial.rho]*len(kept), rel=1e-5)
    assert (n[n.metric == 'grad_norm'].value > 0).all()

@pytest.mark.parametrize('kw, words', [
    (dict(batch=57), 'last batch of one picture'), (dict(data='nowhere'), 'no folder'), (dict(size=12), 'multiple of 8'), (dict(width=0), 'width'),
    (dict(n_train=5), 'at least one of each of the 10 classes'), (dict(n_train=90_000), 'at most'), (dict(norm='x'), 'norm'), (dict(order='x'), 'order'),
    (dict(arch='vgg'), 'arch'), (dict(precision='tf32'), 'GPU'), (dict(epochs=0), 'epochs'), (dict(rho=-1.), 'rho')], ids=str)
def test_bad_input_is_one_clear_line(kw, words):
    if 'precision' in kw and torch.cuda.is_available(): pytest.skip('this machine has a GPU')
    with pytest.raises(InputError, match=words) as e: smoke(**kw) # at the door
    assert '\n' not in str(e.value)

@pytest.mark.parametrize('engine', [pytest.param('native', marks=needs_kernel), 'torch'])
def test_a_lost_network_is_a_result(engine, monkeypatch):
    "NaN in one of two networks: no accuracy anywhere, regime 3, a note, and nothing of it in the other one"
    if engine == 'torch': monkeypatch.setattr(native_conv, 'conv_kernel', lambda: None)
    p, = resolved(protocols('convnetsi32_cifar10', 'smoke', plrs=[1e-3]))
    whole, trial = live(p), STUDIES[p.study].trial(p)
    trial.make().networks.state['convs.1.weight'][0] = math.nan
    trial.live()
    labels = network_regimes(trial.tables['metrics'], 10.)
    assert labels.set_index('train_seed').regime[1] == '3' and '1 of 2 networks were lost' in verdict(trial).seen
    for name in ('metrics', 'geometry', 'bands', 'borders', 'norms', 'sharpness', 'curves'):
        t = trial.tables[name]
        counted = t.metric.isin(['weight_norm', 'convergence_epoch', 'test_acc_converged'])
        assert t[(t.train_seed == 1) & ~counted & (t.stage != 'init')].value.isna().all() if 'stage' in t else True
        # a level of the training loss that only the other one crosses has rows without a value
        theirs, mine = (x.tables[name].query('train_seed == 2').value.dropna().to_numpy() for x in (whole, trial))
        np.testing.assert_array_equal(theirs, mine)

def test_what_was_lost_on_the_way_has_no_tail(monkeypatch):
    "good looks before the loss of a network do not count"
    p, = resolved(protocols('convnetsi32_cifar10', 'smoke', plrs=[1e-3], overrides=dict(epochs=20)))
    trial = STUDIES[p.study].trial(p)
    def lose(stage, done, total, fraction):
        if stage == 'pretrain' and done == 19: trial.stage['pretrain'].networks.state['convs.1.weight'][0] = math.nan
    trial.on_progress = lose
    tail = select(pd.concat(trial.pretrain().rows), stage='pretrain', metric='test_acc_tail').set_index('train_seed').value
    assert math.isnan(tail[1]) and tail[2] > 10

def test_guessing_depends_on_the_data(tmp_path):
    "four classes, class after class in folders: a rate of regime 3 is found at 25 %, and paths see all classes"
    from PIL import Image
    rng = np.random.default_rng(0)
    for part,n in (('train', 40), ('test', 20)):
        for c in range(4):
            (tmp_path/part/f'c{c}').mkdir(parents=True)
            for i in range(n): Image.fromarray((rng.integers(0, 60, (8, 8, 3)) + 50*c).astype('uint8')).save(tmp_path/part/f'c{c}'/f'{i}.png')
    p, = resolved(protocols('convnetsi32_cifar10', 'smoke', plrs=[1e3], overrides=dict(data=str(tmp_path), path_pictures=64)))
    trial = live(p)
    assert select(trial.tables['metrics'], metric='chance').value.tolist() == [25., 25.]
    assert on_its_data(trial.study, trial.tables).chance == 25. and trial.study.chance == 10.
    assert len(trial.data.y_train[:64].unique()) == 4 and (trial.data.y_train.diff() < 0).any()
    at_chance = trial.tables['metrics'].assign(value=lambda t: t.value.where(~t.metric.isin(['test_acc_tail']), 25.5))
    at_chance = at_chance.assign(value=lambda t: t.value.mask(t.metric == 'test_acc_tail_std', 2.)) # a long tail
    ledger = pd.DataFrame(dict(run=[p.short], settings=['{}']))
    assert summary(dict(metrics=at_chance, runs=ledger), trial.study)[0]['regime'] == '3'
