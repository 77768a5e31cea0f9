"""Between two networks: no barrier to oneself or to a scaled copy, a known one over a double well; statistics are torch's; the commands path and bands."""
import functools, json, os, sys
import numpy as np, pytest, torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn
from understanding_lrs.app.cli import main
from understanding_lrs.probes.between import PathOptions, between, check_pair, direction_names, evaluate_module
from understanding_lrs.probes.geometry import barrier
from understanding_lrs.data.loading import load_images
from understanding_lrs.data.sizes import subset
from understanding_lrs.data.channels import channel_stats, normalise
from understanding_lrs.networks.convnet import ConvNetSpec
from understanding_lrs.networks.resnet import ResNet18Spec
from understanding_lrs.training.image_reference import evaluate_net, reestimate_

SPEC = ConvNetSpec(4, 10, 8)

def trained(seed, steps=60, spec=SPEC):
    p = subset(load_images('digits'), 200)
    x, y = normalise(p.x_train, *channel_stats(p.x_train)), p.y_train
    net = spec.build(seed).train()
    opt = torch.optim.SGD(net.weights(), lr=.5)
    for s in range(steps):
        at = torch.arange(40) + 40*(s%5)
        opt.zero_grad()
        F.cross_entropy(net(x[at]), y[at]).backward()
        opt.step()
    return net

@pytest.fixture(scope='module')
def nets(): return [trained(s) for s in (1, 2)]

@pytest.fixture(scope='module')
def sets():
    p = subset(load_images('digits'), 200)
    floats = lambda x: normalise(x, *channel_stats(p.x_train))
    return floats(p.x_train), p.y_train, floats(p.x_test), p.y_test

def test_no_barrier_to_itself_or_to_a_scaled_copy(nets, sets):
    a, b = nets
    assert list(between(a, a, sets[:2], sets[2:], PathOptions(points=3, batch=50)).summary.values())[1:] == [0.]*4
    scaled = SPEC.build(1)
    scaled.load_state_dict(a.state_dict())
    with torch.no_grad():
        for p in scaled.weights(): p *= 5
    way = between(a, scaled, sets[:2], sets[2:], PathOptions(points=5, batch=50))
    assert way.angle < 1e-6 and max(way.summary.values()) < 1e-3
    assert between(a, b, sets[:2], sets[2:], PathOptions(points=5, batch=50)).train_barrier > 5 # the test can fail

class Well(nn.Module):
    "One weight w, logits (0, (1 - w^2)^2) for any input: class 0 wins at w = +-1, on equal terms, and loses everywhere between"
    def __init__(self, w):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([[w]]))
    def forward(self, x): return x.flatten(1)*0 + torch.cat([torch.zeros(1, 1), (1 - self.w**2)**2], dim=1)

def test_double_well():
    "cross-entropy log(1 + exp((1 - w^2)^2)) of label 0 along w = -1..1"
    x, y = torch.zeros(6, 2), torch.zeros(6, dtype=torch.int64)
    way = between(Well(-1.), Well(1.), (x, y), (x, y), PathOptions(points=21))
    assert way.train_loss_barrier == pytest.approx(np.log(1 + np.e) - np.log(2), rel=1e-5) == way.test_loss_barrier
    assert way.train_barrier == 100 and way.angle == pytest.approx(np.pi)
    w = 2*way.alphas.numpy() - 1
    np.testing.assert_allclose(way.test_loss, np.log1p(np.exp((1 - w**2)**2)), rtol=1e-6)

def test_against_a_plain_walk(nets, sets):
    "every point by the reference functions of the pictures' room"
    a, b = nets
    names = a.spec.layer_names()
    assert direction_names(a) == names
    vector = lambda s: torch.cat([s[n].flatten() for n in names]).double()
    sa, sb = a.state_dict(), b.state_dict()
    wa, wb = vector(sa), vector(sb)
    rho = wa.norm()
    way, rows = between(a, b, sets[:2], sets[2:], PathOptions(points=4, batch=40, sphere=True, train_mode='reestimated')), []
    for alpha in (0, 1/3, 2/3, 1):
        w = (1 - alpha)*wa + alpha*wb*rho/wb.norm()
        w *= rho/w.norm()
        parts = w.float().split([sa[n].numel() for n in names])
        net = SPEC.build(5)
        net.load_state_dict({k: (1 - alpha)*v + alpha*sb[k] for k,v in sa.items() if v.is_floating_point()}
                            | {n: p.view_as(sa[n]) for n,p in zip(names, parts)}, strict=False)
        reestimate_(net, sets[0], 40)
        rows.append((*evaluate_net(net, *sets[:2]), *evaluate_net(net, *sets[2:])))
    for got,want in zip((way.train_loss, way.train_acc, way.test_loss, way.test_acc), np.transpose(rows)): np.testing.assert_allclose(got, want, rtol=1e-4)
    u, v = wa.numpy(), wb.numpy()
    assert way.angle == pytest.approx(np.arccos(u@v/np.sqrt((u@u)*(v@v))), rel=1e-9)
    assert way.test_barrier == barrier(100 - way.test_acc).item()

def test_reestimation_is_torchs_and_leaves_dropout_off(nets, sets):
    mine, torchs = trained(3, 5), trained(3, 5)
    loss, acc = evaluate_module(mine, *sets[:2], batch=60, reestimate=True)
    torch.optim.swa_utils.update_bn(sets[0].split(60), torchs)
    for m,t in zip(mine.norms, torchs.norms):
        torch.testing.assert_close(m.running_mean, t.running_mean)
        torch.testing.assert_close(m.running_var, t.running_var)
        assert m.momentum == .1 and not m.training
    with_batch = torch.cat([torchs.train()(x) for x in sets[0].split(60)])
    assert loss == pytest.approx(F.cross_entropy(with_batch, sets[1]).item(), rel=1e-5)
    assert acc == pytest.approx(100*(with_batch.argmax(1) == sets[1]).double().mean().item())
    wet = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(192), nn.Dropout(.5), nn.Linear(192, 10))
    assert evaluate_module(wet, *sets[:2], reestimate=True) == evaluate_module(wet, *sets[:2], reestimate=True)

def test_ends_stay_and_nan_is_a_reading(nets, sets):
    a, b = nets
    before = [{k: v.clone() for k,v in n.state_dict().items()} for n in nets]
    between(a, b, sets[:2], sets[2:], PathOptions(points=2, batch=50))
    assert all(torch.equal(v, n.state_dict()[k]) for n,s in zip(nets, before) for k,v in s.items())
    lame = trained(2, 0)
    with torch.no_grad(): lame.convs[1].weight[0] = torch.nan
    assert all(np.isnan(v) for v in between(a, lame, sets[:2], sets[2:], PathOptions(points=3, batch=50)).summary.values())

def test_wrong_pairs(nets, sets):
    a, b = nets
    sa, sb = a.state_dict(), b.state_dict()
    other = ResNet18Spec(4, 10, 8).build(1)
    wrong = [('the second network has no tensor convs.0.weight and lacks', sa, other.state_dict()), ('batch-norm buffer norms.2.running_var', sa, {k: v for k,v in sb.items() if k != 'norms.2.running_var'}),
             (r'convs.0.weight is \(4, 3, 3, 3\) in the first network, \(8', sa, ConvNetSpec(8, 10, 8).build(1).state_dict()),
             ('holds NaN or infinity', sa, sb | {'head.weight': sb['head.weight']/0}), ('are all zero', sa, {k: 0*v for k,v in sb.items()})]
    for part,one,two in wrong:
        with pytest.raises(ValueError, match=part): check_pair(one, two)
    check_pair(sa, sb)
    with pytest.raises(ValueError, match=r'images must be \(n, 3, 8, 8\), got \(50, 3, 16, 16\)'):
        between(a, b, (F.interpolate(sets[0], 16), sets[1]), sets[2:], PathOptions(points=2, batch=50))

MY_NETS = """from torch import nn
def small(): return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
def plain(): return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
def large(): return nn.Sequential(nn.Flatten(), nn.Linear(768, 10))
def short(): return nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
def broken(): raise RuntimeError('no\\nway')
def leaves(): raise SystemExit(3)
class Pair(nn.Flatten):
    def forward(self, x): return x, x
def ours():
    from understanding_lrs.networks.convnet import ConvNetSpec
    from understanding_lrs.networks.resnet import ResNet18Spec
    return ConvNetSpec(4, 10, 8).build(0)
def wrapped(): return nn.DataParallel(ours())
"""

@pytest.fixture
def ulrs(monkeypatch, tmp_path, capsys, nets):
    "Run a command in a folder with two networks and a module of one's own"
    monkeypatch.chdir(tmp_path)
    (tmp_path/'my_nets_of_test.py').write_text(MY_NETS)
    for n,net in zip('ab', nets): save_file(net.state_dict(), f'{n}.safetensors')
    def run(words):
        code = main(words.split())
        return code, *capsys.readouterr()
    return run

def test_path_of_two_files(ulrs, nets, sets, tmp_path):
    code, out, err = ulrs('path a.safetensors b.safetensors --data digits --points 3 --pictures 200 --batch 50 --json')
    assert code == 0, err
    got, want = json.loads(out), between(*nets, sets[:2], sets[2:], PathOptions(points=3, batch=50, sphere=True))
    assert got['test_acc'] == want.test_acc.tolist() and {k: got[k] for k in want.summary} == pytest.approx(want.summary)
    assert (tmp_path/'path.svg').read_text().startswith('<?xml') and got['pictures'] == 200
    code, out, err = ulrs('path a.safetensors b.safetensors --data digits --points 3 --pictures 200 --great-circle --out p.png')
    assert code == 0 and out.startswith('angle: ') and 'barrier, pp' in out and out.endswith('p.png\n')

def test_networks_of_ones_own_are_on_no_sphere_unless_one_says_so(ulrs):
    "norms that agree by chance do not bend the path: the middle of a straight line is the mean of the two networks"
    mine = {}
    exec(MY_NETS, mine)
    torch.manual_seed(0)
    one, two, middle = (mine['plain']() for _ in range(3))
    with torch.no_grad():
        for p, q in zip(one.parameters(), two.parameters()):
            if p.norm() > 0: q.mul_(p.norm()/q.norm())
        for m, p, q in zip(middle.parameters(), one.parameters(), two.parameters()): m.copy_((p + q)/2)
    for name, net in dict(one=one, two=two, middle=middle).items(): save_file(net.state_dict(), f'{name}.safetensors')
    words = 'path {} --data digits --net my_nets_of_test:plain --points 3 --pictures 50 --json'
    along = {sphere: json.loads(ulrs(words.format(f'one.safetensors two.safetensors{sphere}'))[1]) for sphere in ('', ' --no-sphere', ' --sphere')}
    alone = json.loads(ulrs(words.format('middle.safetensors middle.safetensors'))[1])
    assert [v['sphere'] for v in along.values()] == [False, False, True]
    assert along['']['test_loss'] == along[' --no-sphere']['test_loss'] and along['']['test_loss'][1] == pytest.approx(alone['test_loss'][0], rel=1e-4)
    assert along[' --sphere']['test_loss'][1] != pytest.approx(alone['test_loss'][0], rel=1e-4)
    code, out, _ = ulrs('path one.safetensors two.safetensors --data digits --net my_nets_of_test:plain --points 2 --pictures 50')
    assert code == 0 and 'a straight line' in out

def test_modules_of_ones_own(ulrs):
    "each on pictures of the size it is made for"
    mine, before = {}, list(sys.path)
    exec(MY_NETS, mine)
    for i in '12': save_file(mine['small']().state_dict(), f'{i}.safetensors')
    save_file(mine['large']().state_dict(), 'large.safetensors')
    for words in ('path 1.safetensors 2.safetensors --points 2 --net my_nets_of_test:small', 'bands large.safetensors --size 16 --net my_nets_of_test:large'):
        code, out, err = ulrs(f'{words} --data digits --pictures 50 --json')
        assert code == 0, err
    assert sys.path == before

MODULES = [
    ('my_nets_of_test', "--net: expected module:callable, got 'my_nets_of_test'"),
    ('no_such_module:small', "ModuleNotFoundError: No module named 'no_such_module'; correct it, or name a callable without arguments in a module that Python finds from here"),
    ('my_nets_of_test:big', "no attribute 'big'"),
    ('torch.nn:Linear', 'missing 2 required positional arguments'),
    ('my_nets_of_test:broken', '--net my_nets_of_test:broken: RuntimeError: no way; correct it'),
    ('my_nets_of_test:leaves', 'SystemExit: 3'),
    ('builtins:dict', 'expected a torch module, got dict'),
    ('my_nets_of_test:large', '(2x192 and 768x10); it was given two pictures 3x8x8: say with --size what size it is made for, or name another'),
    ('my_nets_of_test:short', 'expected a tensor (2, 10), one column a class, got (2, 3); it was given two pictures 3x8x8'),
    ('torch.nn:Identity', 'one column a class, got (2, 3, 8, 8)'),
    ('my_nets_of_test:Pair', 'one column a class, got a tuple')]

@pytest.mark.parametrize('net,part', MODULES)
@pytest.mark.parametrize('words', ['path a.safetensors b.safetensors', 'bands a.safetensors'])
def test_wrong_module_is_one_line(ulrs, words, net, part):
    code, out, err = ulrs(f'{words} --data digits --net {net}')
    assert (code, out) == (2, '') and err.startswith('ulrs: --net') and part in err and err.count('\n') == 1, err

def test_bands_of_a_file(ulrs, tmp_path, nets, sets):
    code, out, err = ulrs('bands a.safetensors --data digits --pictures 200 --json')
    assert code == 0, err
    got = json.loads(out)
    assert list(got['limits']) == ['background', 'low', 'mid', 'high'] and (tmp_path/'spectrum.svg').exists()
    assert {r['metric'] for r in got['bands']} == {'band_acc_raw', 'band_acc_std', 'band_acc_band', 'without_acc'}
    assert got['test_acc'] == pytest.approx(evaluate_net(nets[0], *sets[2:])[1])
    code, out, err = ulrs('bands a.safetensors --data digits --limits 0-0,low=1-2,3-8')
    assert code == 0 and 'low' in out and '3-8' in out and 'chance 10 %' in out

def test_norm_in_numbers(ulrs):
    "own's numbers give what own gives, one for all channels (digits are grey) or one a channel"
    mean, std = channel_stats(subset(load_images('digits'), 200).x_train)
    seen = {}
    for norm in ('own', f'{mean[0]!r}/{std[0]!r}', '/'.join(','.join(map(repr, v)) for v in (mean, std)), 'cifar'):
        code, out, err = ulrs(f'bands a.safetensors --data digits --pictures 200 --norm {norm} --json')
        assert code == 0, err
        seen[norm] = json.loads(out)
    own, one, each, cifar = seen.values()
    assert own == one == each and own['test_loss'] != cifar['test_loss']

WRONG = [
    ('path a.safetensors b.safetensors --data digits --no-sphere --great-circle', '--great-circle: these networks are on no sphere'),
    ('path a.safetensors c.safetensors --data digits', 'c.safetensors: there is no such file'),
    ('path a.safetensors text.safetensors --data digits', 'text.safetensors is not a safetensors file'),
    ('path a.safetensors b.safetensors', '--data: say on which pictures'),
    ('path a.safetensors b.safetensors --data nowhere', 'there is no folder nowhere'),
    ('path a.safetensors::pretrain b.safetensors --data digits', 'holds one network; leave out ::pretrain'),
    ('path a.safetensors b.safetensors --data digits --points 1', '--points: a path needs at least 2, got 1'),
    ('path a.safetensors b.safetensors --data digits --size 0', 'size must be at least 1, got 0'),
    ('path a.safetensors b.safetensors --data digits --size 4', 'size must be an integer >= 8, got 4'),
    ('path a.safetensors b.safetensors --data digits --pictures 7', 'at least one of each of the 10 classes, got 7'),
    ('path a.safetensors b.safetensors --data digits --norm mine', "--norm: expected own, cifar or mean/std such as 0.5/0.25 or .5,.5,.4/.2,.2,.3, got 'mine'"),
    ('path a.safetensors b.safetensors --data digits --norm 0.5/x', "got '0.5/x'"),
    ('path a.safetensors b.safetensors --data digits --norm 1/2/3', "got '1/2/3'"),
    ('bands a.safetensors --data digits --norm nan/0.25', "got 'nan/0.25'"),
    ('bands a.safetensors --data digits --norm 0.5,0.5/0.25', '--norm: mean must be one number, or one a channel (3), got 2'),
    ('bands a.safetensors --data digits --norm 0.5/1,1,1,1', '--norm: std must be one number, or one a channel (3), got 4'),
    ('bands a.safetensors --data digits --norm 0.5/0.2,0,0.2', '--norm: std must be > 0, got 0'),
    ('path a.safetensors b.safetensors --data digits --out p.gif', 'ends in .svg, .png or .pdf, got p.gif'),
    ('path a.safetensors wide.safetensors --data digits', 'convs.0.weight is (4, 3, 3, 3) in the first network, (8, 3, 3, 3) in the second'),
    ('path a.safetensors bare.safetensors --data digits', 'no batch-norm buffer norms.0.running_mean'),
    ('path a.safetensors nan.safetensors --data digits', 'nan.safetensors: convs.2.weight holds NaN or infinity'),
    ('path a.safetensors zero.safetensors --data digits', 'the weights of the second network are all zero'),
    ('bands bare.safetensors --data digits', 'bare.safetensors: batch-norm buffer norms.0.running_mean is missing'),
    ('bands other.safetensors --data digits', 'no network of this project (it has foo'),
    ('bands few.safetensors --data digits', 'the network gives (3,) numbers an input, labels go up to 9'),
    ('bands a.safetensors --data digits --limits 1-3,3-8', "overlap at distance 3"),
    ('bands a.safetensors --data digits --limits 9-12', 'selects no coefficient of 8x8 images'),
    ('bands a.safetensors --data digits --limits low', "--limits: expected bands such as 0-0,1-8 or low=1-8, got 'low'"),
    ('bands a.safetensors --data digits --limits 1-2,1-2', 'band 1-2 is given twice')]

@pytest.mark.parametrize('words,part', WRONG)
def test_wrong_input_is_one_line(ulrs, tmp_path, nets, words, part):
    s = nets[0].state_dict()
    (tmp_path/'text.safetensors').write_text('no tensors')
    save_file(ConvNetSpec(8, 10, 8).build(1).state_dict(), 'wide.safetensors')
    save_file({k: v for k,v in s.items() if 'running' not in k}, 'bare.safetensors')
    save_file(s | {'convs.2.weight': s['convs.2.weight']*torch.nan}, 'nan.safetensors')
    save_file({k: 0*v for k,v in s.items()}, 'zero.safetensors')
    save_file({'foo.weight': torch.ones(3, 2)}, 'other.safetensors')
    save_file(ConvNetSpec(4, 3, 8).build(1).state_dict(), 'few.safetensors')
    code, out, err = ulrs(words)
    assert (code, out) == (2, '') and err.startswith('ulrs: ') and part in err and err.count('\n') == 1, err

@pytest.fixture(scope='module')
def kept(tmp_path_factory):
    "A finished run of two seeds on digits that kept its networks"
    from understanding_lrs.runs.store import Run
    from understanding_lrs.studies.registry import protocols, resolved
    from understanding_lrs.studies.trial import live
    p, = resolved(protocols('convnetsi32_cifar10', 'smoke', plrs=[1e-2]))
    with pytest.MonkeyPatch.context() as m:
        m.setenv('ULRS_KEEP_STATES', '1')
        trial = live(p, Run(tmp_path_factory.mktemp('runs'), p))
    return trial, trial.run/'states.safetensors'

def test_points_of_a_run_repeat_its_readings(ulrs, kept):
    "pictures, their size and norm, batch: all from the protocol"
    trial, file = kept
    t = trial.tables['geometry']
    want = lambda m,seed: t[(t.pair == 'low_high') & (t.metric == m) & (t.train_seed == seed)].value.item()
    for k,seed in enumerate(trial.protocol.train_seeds):
        low, high = (f'{file}::flr={flr:.0e}@{k}' for flr in (min(trial.protocol.flrs), max(trial.protocol.flrs)))
        code, out, err = ulrs(f"path {high} {low} --points {trial.protocol.settings['path_points']} --json")
        assert code == 0, err
        got = json.loads(out)
        assert got['angle'] == pytest.approx(want('angle', seed), rel=1e-4)
        for m in ('train_barrier', 'test_barrier'): assert got[m] == pytest.approx(want(m, seed), abs=.1)
    code, out, err = ulrs(f'bands {file}::pretrain@1 --json')
    m = trial.tables['metrics']
    assert code == 0, err
    assert json.loads(out)['test_acc'] == pytest.approx(m[(m.stage == 'pretrain') & (m.metric == 'test_acc') & (m.train_seed == 2) & m.band.isna()].value.item(), abs=.3)

@pytest.mark.parametrize('verb', ['path', 'bands'])
def test_help(ulrs, verb):
    code, out, _ = ulrs(f'{verb} --help')
    assert code == 0 and f'ulrs {verb}' in out and 'Examples' in out

def test_wrong_points_of_a_run(ulrs, kept):
    _, file = kept
    for words,part in (('', 'holds the networks of a run; write'), ('::pretrian', "did you mean 'pretrain'?"), ('::pretrain@2', 'expected a network 0..1 behind the @'),
                       ('::flr=7', "unknown point"), ('::pretrain --size 4', '--size 4: the network has learned pictures of size 8')):
        code, out, err = ulrs(f'bands {file}{words}')
        assert (code, out, err.count('\n')) == (2, '', 1) and part in err, err

# --- networks that other programs have saved

def read(capsys, net=None, file='net.safetensors'):
    "The tensors that a module gets from a file, and what is said"
    from understanding_lrs.app.cli_networks import network_of, read_network
    state, settings = read_network(file)
    with torch.no_grad(): made = network_of(file, state, net, digits(), settings)
    return made.state_dict(), capsys.readouterr().err

@functools.lru_cache
def digits(): return load_images('digits')

def equal(a, b): # state dicts, by values
    return len(a) == len(b) and all(torch.equal(v, w) for v, w in zip(a.values(), b.values()))

def with_prefix(prefix): return lambda state: {prefix + n: v for n, v in state.items()}

WRAPPED = {
    'DataParallel': with_prefix('module.'),
    'torch.compile': with_prefix('_orig_mod.'),
    'both': with_prefix('_orig_mod.module.'),
    'a compiled part': lambda state: {n.replace('norms.', 'norms._orig_mod.'): v for n, v in state.items()},
    'AveragedModel': lambda state: with_prefix('module.')(state) | dict(n_averaged=torch.tensor(3)),
    'TensorFlow': lambda state: {f'{n}:0': v for n, v in state.items()},
}

@pytest.mark.parametrize('by', WRAPPED)
@pytest.mark.parametrize('net', [None, 'my_nets_of_test:ours'])
def test_names_of_wrappers_are_left_out_and_said(ulrs, capsys, nets, by, net):
    save_file(WRAPPED[by](nets[0].state_dict()), 'net.safetensors')
    got, said = read(capsys, net)
    assert equal(got, nets[0].state_dict()) and 'net.safetensors: read ' in said and said.count('\n') == 1

@pytest.mark.parametrize('net, prefix', [('wrapped', ''), ('wrapped', 'module.'), ('ours', 'model.'), ('ours', 'state.backbone.')])
def test_the_module_may_be_wrapped_or_a_part_of_what_was_saved(ulrs, capsys, nets, net, prefix):
    save_file(with_prefix(prefix)(nets[0].state_dict()), 'net.safetensors')
    assert equal(read(capsys, f'my_nets_of_test:{net}')[0], nets[0].state_dict())

@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2])
def test_other_number_formats_are_read(ulrs, capsys, nets, dtype):
    other = {n: v.to(dtype) if v.is_floating_point() else v for n, v in nets[0].state_dict().items()}
    save_file(other, 'net.safetensors')
    assert equal(read(capsys)[0], {n: v.float() if v.is_floating_point() else v for n, v in other.items()})

def test_networks_without_batch_norm(ulrs):
    exec(MY_NETS, mine := {})
    for name in 'xy': save_file(mine['plain']().state_dict(), f'{name}.safetensors')
    assert ulrs('bands x.safetensors --data digits --json --net my_nets_of_test:plain')[0] == 0
    assert ulrs('path x.safetensors y.safetensors --data digits --points 2 --pictures 50 --net my_nets_of_test:plain')[0] == 0

FOREIGN = {
    'packed integers': (lambda s: s | {'head.weight': s['head.weight'].to(torch.int8)}, 'head.weight holds torch.int8, expected torch.float32'),
    'complex numbers': (lambda s: s | {'head.weight': s['head.weight'].to(torch.complex64)}, 'head.weight holds torch.complex64'),
    'two wrapped in one file': (lambda s: s | with_prefix('module.')(s), 'has no module.'),
    'a colon': (lambda s: {n.replace('.', ':'): v for n, v in s.items()}, 'no network of this project'),
}

@pytest.mark.parametrize('case', FOREIGN)
def test_foreign_tensors_are_one_line(ulrs, nets, case):
    change, part = FOREIGN[case]
    save_file({n: v.clone() for n, v in change(nets[0].state_dict()).items()}, 'net.safetensors')
    code, out, err = ulrs('bands net.safetensors --data digits')
    assert (code, out) == (2, '') and part in err and err.count('\n') == 1, err

def test_what_is_no_plain_file(ulrs, tmp_path):
    os.mkfifo('net.safetensors')
    code, out, err = ulrs('bands net.safetensors --data digits')
    assert code == 2 and 'not a plain file' in err

def test_one_changed_bit_among_the_networks_of_a_run_is_seen(ulrs, kept, tmp_path):
    _, file = kept
    data = bytearray(file.read_bytes())
    (tmp_path/'states.safetensors').write_bytes(data)
    assert ulrs('bands states.safetensors::pretrain --data digits')[0] == 0
    data[-3] ^= 1
    (tmp_path/'states.safetensors').write_bytes(data)
    code, out, err = ulrs('bands states.safetensors::pretrain --data digits')
    assert code == 2 and 'damaged' in err
