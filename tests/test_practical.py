"""Practical settings: SGD with momentum, weight decay and shifted pictures is torch's; momentum survives a resume and ends with its stage."""
from dataclasses import replace
import pytest, torch
import torch.nn.functional as F
from understanding_lrs.training import native_conv
from understanding_lrs.data.loading import load_images
from understanding_lrs.data.channels import channel_stats
from understanding_lrs.data.augmentation import augment
from understanding_lrs.networks.convnet import ConvNetSpec
from understanding_lrs.networks.resnet import ResNet18Spec
from understanding_lrs.studies.array_trial import ImageTrial
from understanding_lrs.probes.context import ArrayEvaluator, PathSettings
from understanding_lrs.training.array_task import ArrayTask
from understanding_lrs.training.optimizers import Recipe, VELOCITY, at_rest
from understanding_lrs.training.image_data import resident
from understanding_lrs.training.image_epochs import EvalConfig, evaluate_nets
from understanding_lrs.training.networks import make_networks
from understanding_lrs.training.trainer import Schedule, Trainer
from understanding_lrs.core.errors import InputError, OutOfTime
from understanding_lrs.runs.store import Run
from understanding_lrs.core.seeds import epoch_order
from understanding_lrs.studies.registry import STUDIES, protocols, resolved
from understanding_lrs.studies.trial import live

CONVNET, RESNET, RECIPE, BATCH = ConvNetSpec(4, 10, 8, practical=True), ResNet18Spec(2, 10, 8, practical=True), Recipe(.9, 5e-2, 2), 24
ENGINES = [pytest.param('native', marks=pytest.mark.skipif(native_conv.conv_kernel() is None, reason='no C compiler')), 'torch']
SGD = dict(momentum=RECIPE.momentum, weight_decay=RECIPE.weight_decay)

@pytest.fixture(scope='module')
def data():
    d = load_images('digits')
    d = replace(d, x_train=d.x_train[:100], y_train=d.y_train[:100], x_test=d.x_test[:100], y_test=d.y_test[:100])
    return resident(d, *channel_stats(d.x_train))

def stage(nets, data, epochs, lr=(1e-2, 3e-2), engine='auto', **kw):
    return Trainer(ArrayTask(data, 0., BATCH, RECIPE, engine), nets, torch.tensor(lr), Schedule(epochs, **kw))
def plainly(net, data, seed, lr, epochs, purpose='pretrain_order', shifts='augment', recipe=RECIPE):
    "the reference: torch's optimiser, one network"
    from understanding_lrs.data.augmentation import augment_table, crop_flip
    opt = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay)
    net.train()
    for e in range(epochs):
        x = crop_flip(data.x_train, augment_table(seed, e, len(data.x_train), recipe.pad, purpose=shifts), recipe.pad) if recipe.pad else data.x_train
        for b in torch.from_numpy(epoch_order(seed, len(x), e, purpose)).split(BATCH):
            opt.zero_grad(); F.cross_entropy(net(data.inputs(x[b])), data.y_train[b]).backward(); opt.step()
    return net

@pytest.mark.parametrize('spec', [CONVNET, RESNET], ids=lambda s: s.arch)
@pytest.mark.parametrize('purpose, shifts', [('pretrain_order', 'augment'), ('finetune_order', 'finetune_augment')])
def test_a_stage_is_torchs_sgd_on_shifted_pictures(data, spec, purpose, shifts):
    st = stage(make_networks(spec, [3, 4], 0.), data, 2, purpose=purpose).run()
    for k,(seed,lr) in enumerate([(3, 1e-2), (4, 3e-2)]):
        there = plainly(spec.build(seed), data, seed, lr, 2, purpose, shifts).state_dict()
        for n,v in at_rest(st.networks).state.items(): torch.testing.assert_close(v[k], there[n], rtol=2e-3, atol=2e-4)

@pytest.mark.parametrize('other', [Recipe(0., 5e-2, 2), Recipe(.9, 0., 2), Recipe(.9, 5e-2, 0)], ids=str)
def test_every_part_of_the_rule_counts(data, other):
    "so that the test above can fail"
    mine = stage(make_networks(CONVNET, [3], 0.), data, 1, lr=(1e-2,)).run().networks.flat()[0]
    net = plainly(CONVNET.build(3), data, 3, 1e-2, 1, recipe=other)
    assert not torch.allclose(mine, torch.cat([p.detach().flatten() for p in net.parameters() if p.requires_grad]), atol=1e-3)

def test_shifted_pictures_are_those_of_augment(data):
    from understanding_lrs.data.augmentation import augment_table, crop_flip
    assert torch.equal(crop_flip(data.x_train, augment_table(3, 1, 100, 2), 2), augment(data.x_train, 3, 1, 2))

def test_everything_is_trained(data):
    assert RESNET.trained_names() == [n for n,_ in RESNET.build(1).named_parameters()]
    before = make_networks(RESNET, [3, 4], 0.)
    after = stage(before, data, 1).run().networks
    assert all(not torch.equal(after.state[n], before.state[n]) for n in RESNET.trained_names())

def test_momentum_survives_a_resume_and_goes_on_in_the_next_stage(data):
    nets = make_networks(CONVNET, [3, 4], 0.)
    whole, half = stage(nets, data, 4, swa_k=(2, 5)).run(), stage(nets, data, 4, swa_k=(2, 5)).run(until=2)
    again = stage(nets, data, 4, swa_k=(2, 5)).load({k: v.clone() for k,v in half.state().items()}).run()
    for n,v in whole.networks.state.items(): assert torch.equal(v, again.networks.state[n])
    assert all(torch.equal(v, again.averages[k]) for k,v in whole.averages.items())
    after = stage(stage(nets, data, 2).run().networks, data, 2, shift=2).run()
    assert torch.equal(whole.networks.flat(), after.networks.flat())
    rested = stage(at_rest(stage(nets, data, 2).run().networks), data, 2, shift=2).run()
    assert not torch.allclose(whole.networks.flat(), rested.networks.flat(), atol=1e-4)

class Watched(ArrayEvaluator):
    "notes the weights that it is asked about"
    def measure(self, nets, *args, **kw):
        self.seen.append(nets.flat())
        return torch.zeros(2, len(nets))

def test_a_path_is_straight_in_all_that_is_trained(data):
    "no sphere: convolutions, affine norms and head are averaged as they are [protocol, section 3]"
    a, b = make_networks(CONVNET, [3, 4], 0.), make_networks(CONVNET, [5, 6], 0.)
    for nets in (a, b): nets.state['norms.0.weight'] *= torch.rand(2, 4) + .5
    watched = Watched(data, 0., BATCH, PathSettings(points=3))
    watched.__dict__['seen'] = []
    watched.along(a, b, halves=('train',))
    torch.testing.assert_close(torch.stack(watched.seen), torch.stack([a.flat(), (a.flat() + b.flat())/2, b.flat()]))

def test_angles_are_those_of_the_convolutions(data):
    a = make_networks(CONVNET, [3, 4], 0.)
    b = a.copy()
    b.state['head.weight'] *= -1; b.state['norms.0.bias'] += 1
    assert torch.equal(a.directions(), b.directions()) and not torch.equal(a.flat(), b.flat())
    si = make_networks(replace(CONVNET, practical=False), [3], 6.)
    assert torch.equal(si.directions(), si.flat())

def test_a_run_stops_goes_on_and_is_the_same(tmp_path):
    p, = resolved(protocols('resnet18_practical_cifar10', 'smoke', plrs=[1e-2], overrides=dict(epochs=3)))
    whole = live(p)
    trial = ImageTrial(p, Run(tmp_path, p))
    def stop(stage, done, total, fraction):
        if stage == 'average' and done == 1: trial.deadline = 0.
    trial.on_progress = stop
    with pytest.raises(OutOfTime): trial.live()
    trial.locked.close()
    again = ImageTrial(p, Run(tmp_path, p)).live()
    for name in ('metrics', 'geometry', 'bands', 'norms', 'filters'): assert whole.tables[name].value.equals(again.tables[name].value)
    assert 'sharpness' not in again.tables, 'the unit sphere is that of scale-invariant networks'

def test_fine_tuning_starts_at_rest():
    trial = ImageTrial(*resolved(protocols('resnet18_practical_cifar10', 'smoke', plrs=[1e-2]))).pretrain()
    assert any(n.startswith(VELOCITY) for n in trial.points['pretrain'].state)
    start = trial.finetune().stage['finetune']
    again = Trainer(ArrayTask(trial.data, 0., 32, recipe=trial.recipe), at_rest(trial.points['pretrain']).repeat(2), torch.tensor([1e-4, 1e-4, 1e-3, 1e-3]), Schedule(2, purpose='finetune_order', evals=[])).run()
    assert torch.equal(start.networks.flat(), again.networks.flat())

@pytest.mark.parametrize('kw, words', [
    (dict(momentum=1.), 'momentum must be at least 0 and below 1'), (dict(weight_decay=-1.), 'weight_decay must be at least 0'),
    (dict(pad=-1), 'pad must be at least 0'), (dict(great_circle=True), 'great_circle needs a sphere'), (dict(rho=1.), "'rho'")], ids=str)
def test_wrong_settings_are_refused(kw, words):
    with pytest.raises(InputError, match=words): protocols('resnet18_practical_cifar10', 'smoke', overrides=kw)

def test_settings_of_one_kind_are_unknown_to_the_other():
    with pytest.raises(InputError, match="'momentum'"): protocols('resnet18si_cifar10', 'smoke', overrides=dict(momentum=.5))
    with pytest.raises(ValueError, match='have no radius'): make_networks(CONVNET, [1], 6.)
    with pytest.raises(ValueError, match='others need one'): make_networks(replace(CONVNET, practical=False), [1], 0.)

def test_the_paper_preset_is_the_protocol():
    ten, hundred = protocols('resnet18_practical_cifar10', 'paper'), protocols('resnet18_practical_cifar100', 'paper')
    assert [p.plr for p in ten] == [float(f'{a}e{e}') for e in range(-4, 0) for a in (1, 2, 5)] + [1.] and [p.plr for p in hundred] == [p.plr for p in ten][:-1]
    s = ten[0].settings
    assert (s['arch'], s['width'], s['epochs'], s['batch'], s['momentum'], s['weight_decay'], s['pad'], s['norm']) == ('resnet18', 64, 200, 128, .9, 5e-4, 4, 'cifar')
    assert ten[0].flrs[0] == 1e-4 and {5} <= set(ten[0].swa_k) and STUDIES['resnet18_practical_cifar100'].chance == 1.

def test_the_laptop_preset_is_the_main_ones_with_the_authors_rates():
    mine, main = protocols('resnet18_practical_cifar10', 'laptop'), protocols('convnetsi32_cifar10', 'laptop')[0].settings
    assert [p.plr for p in mine] == [p.plr for p in protocols('resnet18_practical_cifar10', 'paper')] and {p.train_seeds for p in mine} == {(1, 2, 3)}
    s = mine[0].settings
    assert {k for k in main if s.get(k) != main[k]} == {'rho', 'level'} and (s['momentum'], s['weight_decay'], s['pad']) == (.9, 5e-4, 2)

@pytest.mark.skipif(native_conv.conv_kernel() is None, reason='no C compiler')
@pytest.mark.parametrize('recipe', [RECIPE, Recipe(0., 0., 0), Recipe(.9, 0., 1), Recipe(0., 5e-2, 0)], ids=str)
def test_both_engines_train_and_evaluate_the_same(data, recipe):
    "with negative gains, for which pooling takes the smallest pixel; more networks than orders"
    nets = make_networks(CONVNET, [3, 4], 0.)
    for n,v in nets.state.items():
        if n.startswith('norms') and n.endswith('weight'): v.copy_(torch.linspace(-1, 1.5, v.numel()).view_as(v))
    def trained(engine, **kw): return Trainer(ArrayTask(data, 0., BATCH, recipe, engine, **kw), nets.repeat(2), torch.tensor([1e-2, 3e-2, 2e-2, 5e-3]), Schedule(2)).run()
    mine, plain, shared = trained('native'), trained('torch'), trained('native', threads=2)
    assert (mine.networks.state['norms.0.weight'] < 0).any()
    for n,v in plain.networks.state.items():
        torch.testing.assert_close(mine.networks.state[n], v, rtol=2e-3, atol=2e-4)
        assert torch.equal(mine.networks.state[n], shared.networks.state[n])
    torch.testing.assert_close(mine.curves[:, [0, 2]], plain.curves[:, [0, 2]], rtol=1e-3, atol=1e-3, equal_nan=True)
    torch.testing.assert_close(mine.curves, plain.curves, rtol=1e-3, atol=1.1, equal_nan=True) # one picture of a hundred may change sides

@pytest.mark.parametrize('engine', ENGINES)
def test_looking_changes_nothing(data, engine):
    "but the statistics, where they are asked for"
    nets = stage(make_networks(CONVNET, [3, 4], 0.), data, 1).run().networks
    for own in (False, True):
        seen = nets.copy()
        evaluate_nets(seen, data.x_test, data.y_test, data, EvalConfig(BATCH, own, engine))
        for n,v in nets.state.items(): assert torch.equal(v, seen.state[n]) != (own and 'running' in n)
    bare = at_rest(nets).copy()
    torch.testing.assert_close(*(evaluate_nets(n, data.x_test, data.y_test, data, EvalConfig(BATCH, engine=engine))[0] for n in (nets, bare)))

@pytest.mark.parametrize('engine', ENGINES)
def test_a_lost_network_is_a_result_and_its_neighbour_is_alone(data, engine):
    both = stage(make_networks(CONVNET, [3, 4], 0.), data, 2, lr=(1e-2, 1e30), engine=engine).run()
    alone = stage(make_networks(CONVNET, [3], 0.), data, 2, lr=(1e-2,), engine=engine).run()
    assert both.last[:, 1].isnan().all() and torch.equal(both.last[:, 0], alone.last[:, 0])
    for n,v in alone.networks.state.items(): assert torch.equal(both.networks.state[n][:1], v)
