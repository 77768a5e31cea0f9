"""The vision transformer: the protocol's network, torch's Adam, RandAugment as Pillow does it, averages of the last checkpoints; chances survive a resume."""
from dataclasses import replace
import numpy as np
import pytest, torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageEnhance, ImageOps
from understanding_lrs.data.loading import load_images
from understanding_lrs.data.channels import channel_stats
from understanding_lrs.data.augmentation import augment_table, crop_flip
from understanding_lrs.data.rand_augment import HOLE, RAND_OPS, rand_augment, rand_op
from understanding_lrs.networks.convnet import ConvNetSpec
from understanding_lrs.networks.vit import VisionTransformer, VitSpec, patches
from understanding_lrs.training.array_task import ArrayTask
from understanding_lrs.training.optimizers import Recipe, VELOCITY, at_rest
from understanding_lrs.training.networks import make_networks
from understanding_lrs.training.trainer import Schedule, Trainer
from understanding_lrs.training.image_data import resident
from understanding_lrs.training.image_epochs import EvalConfig, evaluate_nets
from understanding_lrs.studies.array_trial import ImageTrial, recall
from understanding_lrs.core.errors import InputError, OutOfTime
from understanding_lrs.runs.store import Run
from understanding_lrs.core.seeds import epoch_order, stream
from understanding_lrs.core.sphere import scaling_error
from understanding_lrs.studies.registry import STUDIES, protocols, resolved
from understanding_lrs.studies.trial import live

SPEC, RECIPE, BATCH = VitSpec(16, 10, 8, depth=2, heads=4, patch=4, dropout=0.), Recipe(.9, 5e-2, 1, optimizer='adam', ops=2), 24

@pytest.fixture(scope='module')
def data():
    d = load_images('digits')
    d = replace(d, x_train=d.x_train[:100], y_train=d.y_train[:100], x_test=d.x_test[:100], y_test=d.y_test[:100])
    return resident(d, *channel_stats(d.x_train))

def stage(nets, data, epochs, lr=(1e-3, 3e-3), recipe=RECIPE, **kw): return Trainer(ArrayTask(data, 0., BATCH, recipe=recipe), nets, torch.tensor(lr), Schedule(epochs, **kw))

# ---- the network

def test_numbers_of_the_protocol():
    "section 4.1: in all, a block, the embedding, class token and positions, the head"
    net, count = VisionTransformer(VitSpec()), lambda *ps: sum(p.numel() for p in ps)
    assert count(*net.parameters()) == 9_634_800 and count(*VisionTransformer(VitSpec(classes=100)).parameters()) == 9_680_970
    assert count(*net.blocks[0].parameters()) == 1_578_497 and count(*net.embed.parameters()) == 123_872
    assert count(net.token, net.position) == 33_792 and count(*net.norm.parameters(), *net.head.parameters()) == 6_154
    bare = count(*net.parameters()) - sum(count(*b.mlp[l].parameters()) for b in net.blocks for l in (1, 5))
    assert bare == 9_622_512 and VitSpec().tokens == 65 and not any(n.endswith('qkv.bias') for n,_ in net.named_parameters())

def by_hand(net, x):
    "the network of section 4.1, picture by picture and head by head"
    s, out = net.spec, []
    w = dict(net.named_parameters())
    norm = lambda v, n: F.layer_norm(v, v.shape[-1:], w[f'{n}.weight'], w[f'{n}.bias'], s.eps)
    linear = lambda v, n: v @ w[f'{n}.weight'].T + (w[f'{n}.bias'] if f'{n}.bias' in w else 0)
    for p in x:
        side, stacked = s.size, [p] + [torch.zeros_like(p) for _ in range(4)]
        stacked[1][:, :, 1:], stacked[2][:, :, :-1], stacked[3][:, 1:], stacked[4][:, :-1] = p[:, :, :-1], p[:, :, 1:], p[:, :-1], p[:, 1:]
        p, t = torch.cat(stacked), [w['token'][0, 0]]
        for i in range(0, side, s.patch):
            for j in range(0, side, s.patch):
                cut = torch.stack([p[:, i + a, j + b] for a in range(s.patch) for b in range(s.patch)]).flatten()
                t.append(linear(norm(cut, 'embed.0'), 'embed.1'))
        t = torch.stack(t) + w['position'][0]
        for b in (f'blocks.{i}' for i in range(s.depth)):
            q, k, v = linear(norm(t, f'{b}.norm1'), f'{b}.attention.qkv').chunk(3, dim=1)
            heads = []
            for q,k,v in zip(*(m.chunk(s.heads, dim=1) for m in (q, k, v))):
                scores = q @ k.T*w[f'{b}.attention.tau'].exp()
                scores.fill_diagonal_(-torch.inf)
                heads.append(scores.softmax(1) @ v)
            t = t + linear(torch.cat(heads, dim=1), f'{b}.attention.out')
            h = F.gelu(norm(linear(norm(t, f'{b}.norm2'), f'{b}.mlp.0'), f'{b}.mlp.1'))
            t = t + norm(linear(h, f'{b}.mlp.4'), f'{b}.mlp.5')
        out.append(linear(norm(t[0], 'norm'), 'head'))
    return torch.stack(out)

def test_the_network_is_the_one_of_the_protocol():
    net = SPEC.build(1).double().eval()
    with torch.no_grad():
        for n,p in net.named_parameters():
            if p.ndim == 1: p.add_(torch.linspace(-.3, .4, p.numel(), dtype=torch.float64)) # norms, biases, temperatures are not at their start
        x = torch.from_numpy(stream('probe', 0).standard_normal((3, 3, 8, 8)))
        torch.testing.assert_close(net(x), by_hand(net, x))
        assert torch.equal(patches(x, 8)[:, 0, :3], x[:, :, 0, 0])

def test_a_token_does_not_see_itself():
    "two tokens: each takes the other's value, whatever the temperature"
    att = VitSpec(8, 3, 4, depth=1, heads=2, patch=4, dropout=0.).build(1).blocks[0].attention
    x = torch.randn(2, 2, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(att(x), att.out(att.qkv(x)[..., 16:].flip(1)))

def test_what_is_scale_invariant_and_what_is_not():
    net, x = SPEC.build(1).double().eval(), torch.from_numpy(stream('probe', 0).standard_normal((8, 3, 8, 8)))
    pairs = [[f'blocks.{b}.mlp.{l}.{k}' for k in ('weight', 'bias')] for b in (0, 1) for l in (0, 4)]
    assert all(scaling_error(net, x, names, c) < 1e-8 for names in pairs for c in (.1, 10.))
    others = [n for n,_ in net.named_parameters() if n.endswith('weight') and not any(n in p for p in pairs)]
    assert all(scaling_error(net, x, [n], 10.) > 1e-4 for n in others)

def test_the_initial_point_is_a_function_of_its_seeds():
    a, b, c = (SPEC.build(*s).state_dict() for s in ((1, 1), (1, 2), (2, 1)))
    assert all(torch.equal(a[n], b[n]) != n.startswith('head') for n in a)
    assert torch.equal(a['head.weight'], c['head.weight']) and not torch.equal(a['position'], c['position'])
    net = VitSpec().build(1)
    assert abs(net.position.std().item() - 1) < .02 and abs(net.embed[1].weight.std().item()*(3*240)**.5 - 1) < .02
    assert net.blocks[0].attention.tau.item() == pytest.approx(-2.0794, abs=1e-4) and net.blocks[0].mlp[0].bias.abs().max() <= 512**-.5

@pytest.mark.parametrize('kw, words', [(dict(size=10), 'size must be a multiple of patch'), (dict(width=20, heads=8), 'width must be a multiple of heads'),
    (dict(depth=0), 'depth must be an integer >= 1'), (dict(dropout=1.), 'dropout must be'), (dict(eps=0.), 'eps must be')], ids=str)
def test_impossible_sizes_are_refused(kw, words):
    with pytest.raises(ValueError, match=words): VitSpec(**kw)

# ---- training

def plainly(net, data, seed, lr, epochs, purpose='pretrain_order', before='', recipe=RECIPE):
    "the reference: torch's optimiser, one network, pictures changed one epoch at a time"
    opt = torch.optim.Adam(net.parameters(), lr=lr, betas=(.9, .999), eps=1e-8, weight_decay=recipe.weight_decay)
    net.train()
    for e in range(epochs):
        x = rand_augment(data.x_train, seed, e, ops=recipe.ops, purpose=f'{before}randaugment') if recipe.ops else data.x_train
        x = crop_flip(x, augment_table(seed, e, len(x), recipe.pad, purpose=f'{before}augment'), recipe.pad) if recipe.pad else x
        for b in torch.from_numpy(epoch_order(seed, len(x), e, purpose)).split(BATCH):
            opt.zero_grad(); F.cross_entropy(net(data.inputs(x[b])), data.y_train[b]).backward(); opt.step()
    return net

@pytest.mark.parametrize('purpose, before', [('pretrain_order', ''), ('finetune_order', 'finetune_')])
def test_a_stage_is_torchs_adam_on_changed_pictures(data, purpose, before):
    st = stage(make_networks(SPEC, [3, 4], 0.), data, 2, purpose=purpose).run()
    for k,(seed,lr) in enumerate([(3, 1e-3), (4, 3e-3)]):
        there = plainly(SPEC.build(seed), data, seed, lr, 2, purpose, before).state_dict()
        for n,v in at_rest(st.networks).state.items(): torch.testing.assert_close(v[k], there[n], rtol=2e-3, atol=2e-4)

@pytest.mark.parametrize('other', [replace(RECIPE, weight_decay=0.), replace(RECIPE, pad=0), replace(RECIPE, ops=0)], ids=str)
def test_every_part_of_the_rule_counts(data, other):
    "so that the test above can fail"
    mine = stage(make_networks(SPEC, [3], 0.), data, 1, lr=(1e-3,)).run().networks.flat()[0]
    net = plainly(SPEC.build(3), data, 3, 1e-3, 1, recipe=other)
    assert not torch.allclose(mine, torch.cat([dict(net.named_parameters())[n].detach().flatten() for n in SPEC.trained_names()]), atol=5e-4)

def test_dropout_draws_from_the_seed_and_the_epoch(data):
    "they survive a resume, leave the caller's generator alone, do not depend on the neighbours, and are not there in evaluation"
    nets = make_networks(replace(SPEC, dropout=.3), [3, 4], 0.)
    whole = stage(nets, data, 3).run()
    before, half = torch.get_rng_state(), stage(nets, data, 3).run(until=2)
    assert torch.equal(before, torch.get_rng_state())
    again = stage(nets, data, 3).load({k: v.clone() for k,v in half.state().items()}).run()
    alone = stage(nets[1:], data, 3, lr=(3e-3,)).run()
    for n,v in whole.networks.state.items(): assert torch.equal(v, again.networks.state[n]) and torch.equal(v[1:], alone.networks.state[n])
    assert any(n.startswith(f'{VELOCITY}square.') for n in whole.networks.state)
    dry = stage(make_networks(SPEC, [3, 4], 0.), data, 3).run()
    assert not torch.allclose(dry.networks.flat(), whole.networks.flat(), atol=1e-3)
    a, b = (evaluate_nets(whole.networks, data.x_test, data.y_test, data, EvalConfig(own=own)) for own in (False, True))
    assert torch.equal(a[0], b[0])

def test_averages_are_of_the_last_checkpoints(data):
    "also across a resume; shorter ones are parts of longer ones"
    nets, kw = make_networks(SPEC, [3, 4], 0.), dict(swa_k=(1, 2, 3), swa_every=2, evals=[])
    seen, whole = {}, stage(nets, data, 5, **kw)
    whole.run(on_window=lambda st: seen.update({st.step: st.networks.flat().double()}))
    for k in (1, 2, 3): torch.testing.assert_close(whole.averages[k].double(), sum(seen[5 - 2*i] for i in range(k))/k, rtol=1e-6, atol=1e-7)
    half = stage(nets, data, 5, **kw).run(until=3)
    again = stage(nets, data, 5, **kw).load({k: v.clone() for k,v in half.state().items()}).run()
    assert whole.averages.keys() == again.averages.keys() and all(torch.equal(v, again.averages[k]) for k,v in whole.averages.items())
    lost = {k: v for k,v in half.state().items() if not k.startswith('sum.')}
    with pytest.raises(ValueError, match='no sum of the average of'): stage(nets, data, 5, **kw).load(lost)
    with pytest.raises(ValueError, match='averaging 4 checkpoints needs 6 epochs, got 5'): stage(nets, data, 5, swa_k=(4,), swa_every=2)

def test_angles_are_of_all_that_is_trained(data):
    a = make_networks(SPEC, [3, 4], 0.)
    assert torch.equal(a.directions(), a.flat()) and set(SPEC.trained_names()) == {n for n,_ in SPEC.build(1).named_parameters()}
    assert set(SPEC.layer_names()) < set(SPEC.trained_names())

# ---- RandAugment

def by_pillow(im, op, sign, u):
    "one operation at strength 14 on a 32x32 picture, as section 4.2 states it"
    share, affine = 14/30, lambda *m: im.transform(im.size, Image.AFFINE, m)
    if op in ('autocontrast', 'equalize', 'invert'): return getattr(ImageOps, op)(im)
    if op == 'rotate': return im.rotate(sign*30*share)
    if op == 'posterize': return ImageOps.posterize(im, 1)
    if op == 'solarize': return ImageOps.solarize(im, 256*share)
    if op == 'solarize_add': return ImageOps.solarize(Image.fromarray(np.clip(np.asarray(im).astype(float) + 110*share, 0, 255).astype(np.uint8)), 128)
    if op == 'cutout':
        x, y = (max(0, 1 + 31*float(v) - 20*share) for v in u)
        im = im.copy()
        ImageDraw.Draw(im).rectangle((int(x), int(y), min(32, int(x) + 40*share), min(32, int(y) + 40*share)), HOLE)
        return im
    if op.startswith('shear'): return affine(*((1, sign*.3*share, 0, 0, 1, 0) if op[-1] == 'x' else (1, 0, 0, sign*.3*share, 1, 0)))
    if op.startswith('translate'): return affine(*((1, 0, sign*100*share, 0, 1, 0) if op[-1] == 'x' else (1, 0, 0, 0, 1, sign*100*share)))
    return getattr(ImageEnhance, dict(saturation='Color').get(op, op.capitalize()))(im).enhance(.1 + 1.8*share)

@pytest.mark.parametrize('op', RAND_OPS)
def test_operations_are_pillows(op):
    "photograph-like pictures; brightness may round the other way, a slanted edge may take the next pixel"
    rng = np.random.default_rng(3)
    smooth = torch.from_numpy(rng.uniform(0, 255, (6, 3, 8, 8))).float()
    x = F.interpolate(smooth, size=32, mode='bilinear').clip(20, 235).to(torch.uint8)
    u = torch.from_numpy(rng.random((6, 3)))
    u[:, 0] = torch.tensor([.1, .9]*3)
    mine = rand_op(x, op, 14, u)
    near = 0
    for signs in ((-1, 1), (1, -1)): # which of the two directions is called positive does not matter
        theirs = [by_pillow(Image.fromarray(p.permute(1, 2, 0).numpy()), op, signs[int(v[0] > .5)], v[1:]) for p,v in zip(x, u)]
        theirs = torch.stack([torch.from_numpy(np.array(t)).permute(2, 0, 1) for t in theirs])
        near = max(near, ((mine.int() - theirs.int()).abs() <= 2).float().mean().item())
    assert near > (.95 if op in ('rotate', 'shear_x', 'shear_y') else .999), near
    assert op in ('autocontrast', 'equalize') or not torch.equal(mine, x)

def test_a_quarter_of_the_pictures_is_black():
    "two translations in sixteen, drawn twice: 1 - (14/16)^2 = 23.4 %, less what is inverted or brightened afterwards"
    x = torch.full((4000, 3, 16, 16), 120, dtype=torch.uint8)
    u = stream('randaugment', 1, 0).random((4000, 2, 4))[:, :, 0]
    moved = (u*16).astype(int) >= 14
    assert abs(moved.any(1).mean() - .234) < .02
    black = (rand_augment(x, 1, 0) == 0).flatten(1).all(1).numpy()
    assert (black >= moved[:, 1]).all() and not black[~moved.any(1) & ~np.isin((u*16).astype(int), (4, 5, 6)).any(1)].any()

def test_changes_are_of_seed_epoch_and_position():
    x = load_images('digits').x_train[:40]
    one = rand_augment(x, 1, 0)
    assert torch.equal(one, rand_augment(x, 1, 0)) and torch.equal(rand_augment(x[:7], 1, 0), one[:7])
    assert not any(torch.equal(one, rand_augment(x, *k)) for k in ((2, 0), (1, 1))) and not torch.equal(one, rand_augment(x, 1, 0, purpose='finetune_randaugment'))
    assert torch.equal(rand_augment(x, 1, 0, ops=0), x)
    assert rand_augment(x[:0], 1, 0).shape == x[:0].shape
    for strength in (0, 30): assert rand_augment(x, 1, 0, strength=strength).shape == x.shape
    with pytest.raises(ValueError, match='strength of RandAugment must be 0..30'): rand_augment(x, 1, 0, strength=31)

# ---- a run

def test_a_run_stops_goes_on_and_is_the_same(tmp_path):
    p, = resolved(protocols('vit_cifar10', 'smoke', plrs=[1e-3], overrides=dict(epochs=5)))
    whole = live(p)
    trial = ImageTrial(p, Run(tmp_path, p))
    def stop(stage, done, total, fraction):
        if stage == 'pretrain' and done == 3: trial.deadline = 0. # within the averages
    trial.on_progress = stop
    with pytest.raises(OutOfTime): trial.live()
    trial.locked.close()
    again = ImageTrial(p, Run(tmp_path, p)).live()
    assert {'metrics', 'curves', 'geometry', 'bands', 'borders', 'norms'} == set(again.tables) == set(whole.tables)
    for name in ('metrics', 'geometry', 'bands', 'norms'): assert whole.tables[name].value.equals(again.tables[name].value)
    m = whole.tables['metrics']
    assert set(m[m.stage == 'average'].swa_k) == {2., 5.} and not m[m.metric == 'test_acc'].value.isna().any()

def test_kept_networks_are_read_again_and_joined_by_a_path(tmp_path):
    from typer.testing import CliRunner
    from understanding_lrs.app.cli import app
    from understanding_lrs.runs.wishes import KEEP_STATES
    p, = resolved(protocols('vit_cifar10', 'smoke', plrs=[1e-3], overrides=dict(n_train=100, n_test=100, batch=25)))
    run = Run(tmp_path, p)
    with pytest.MonkeyPatch.context() as m:
        m.setenv(KEEP_STATES, '1')
        trial = ImageTrial(p, run).live()
    again = ImageTrial(p, run)
    assert recall(again).points.keys() == trial.points.keys() and all(torch.equal(v.flat(), again.points[n].flat()) for n,v in trial.points.items())
    ends = [f"{run.folder/'states.safetensors'}::flr={f!r}" for f in p.flrs]
    out = CliRunner().invoke(app, ['path', *ends, '--points', '3', '--out', str(tmp_path/'p.svg')])
    assert out.exit_code == 0, out.output
    g = trial.tables['geometry']
    angle = g[(g.pair == 'low_high') & (g.metric == 'angle')].value.iloc[0]
    assert f'angle: {angle:.4f}'[:12] in out.output

def test_networks_whose_heads_are_unknown_or_differ_are_refused(tmp_path):
    "the number of heads is in no shape of a tensor"
    from safetensors.torch import save_file
    from typer.testing import CliRunner
    from understanding_lrs.app.cli import app
    from understanding_lrs.runs.wishes import KEEP_STATES
    ask = lambda *words: CliRunner().invoke(app, ['path', *map(str, words), '--points', '2', '--out', str(tmp_path/'p.svg')])
    save_file(dict(SPEC.build(1).state_dict()), tmp_path/'a.safetensors')
    out = ask(*[tmp_path/'a.safetensors']*2, '--data', 'digits')
    assert 'whose number of heads is not known outside its run' in str(out.exception)
    ends = []
    with pytest.MonkeyPatch.context() as m:
        m.setenv(KEEP_STATES, '1')
        for heads in (2, 4):
            p, = resolved(protocols('vit_cifar10', 'smoke', plrs=[1e-3], overrides=dict(n_train=100, n_test=100, batch=25, heads=heads, epochs=4, ft_epochs=1)))
            ends.append(f"{ImageTrial(p, Run(tmp_path/'runs', p)).live().run.folder/'states.safetensors'}::pretrain")
    out = ask(*ends)
    assert 'have 2 and 4 heads' in str(out.exception)

def test_a_second_rate_is_followed_by_averages_of_its_end():
    p, = resolved(protocols('vit_cifar10', 'smoke', plrs=[1e-3], overrides=dict(then_plr=1e-4, then_epochs=5, n_train=100, n_test=100, batch=25, ft_epochs=1)))
    trial = ImageTrial(p).pretrain().then().average()
    assert {2, 5} == trial.stage['then'].averages.keys() and not trial.stage['pretrain'].averages and not trial.points['swa2'].state.keys() & {f'{VELOCITY}steps'}

@pytest.mark.parametrize('kw, words', [(dict(strength=31), 'strength must be at most 30'), (dict(swa_every=0), 'swa_every must be at least 1'), (dict(ops=-1), 'ops must be at least 0'),
    (dict(swa_k=[9]), 'need 8 epochs of pre-training, got 4'), (dict(stop_loss=.1), 'stop_loss ends pre-training early'), (dict(patch=3), 'size must be a multiple of patch'),
    (dict(momentum=.5), "'momentum'"), (dict(great_circle=True), 'great_circle needs a sphere')], ids=str)
def test_wrong_settings_are_refused(kw, words):
    with pytest.raises(InputError, match=words): protocols('vit_cifar10', 'smoke', overrides=kw)

def test_the_engine_in_c_refuses_what_it_does_not_have(data):
    nets = make_networks(ConvNetSpec(4, 10, 8, practical=True), [3], 0.)
    with pytest.raises(ValueError, match='no Adam and no RandAugment'): Trainer(ArrayTask(data, 0., BATCH, recipe=RECIPE, engine='native'), nets, 1e-3, Schedule(1)).run()
    assert Trainer(ArrayTask(data, 0., BATCH, recipe=RECIPE), nets, 1e-3, Schedule(1)).run().last[0].isfinite().all() # in PyTorch

def test_the_paper_preset_is_the_protocol():
    assert [p.train_seeds for p in protocols('vit_cifar10', 'authors')] == [(i,) for i in range(1, 11)]
    runs = protocols('vit_cifar10', 'paper')
    assert [p.plr for p in runs] == [1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2]
    p, s = runs[0], runs[0].settings
    assert p.flrs == (1e-5, 2e-5, 5e-5, 1e-4) and p.swa_k == (2, 5, 10) and p.precision == 'fp32'
    expected = dict(width=512, depth=6, heads=8, patch=4, dropout=.1, size=32, batch=512, epochs=500, ft_epochs=500, weight_decay=1e-4, pad=4, ops=2, strength=14,
                    swa_every=2, look_every=10, path_points=7, norm='cifar', n_train=0, n_test=0)
    assert {k: s[k] for k in expected} == expected and STUDIES['vit_cifar10'].lines == (1e-4, 1e-3, None)

# ---- on a GPU

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU')

@pytest.fixture
def there(data, monkeypatch):
    from understanding_lrs.training import image_lanes
    monkeypatch.setattr(torch.backends.cudnn, 'deterministic', True)
    image_lanes.LANES.clear()
    yield replace(data, **{n: getattr(data, n).cuda() for n in ('x_train', 'y_train', 'x_test', 'y_test')})
    image_lanes.LANES.clear()

@needs_gpu
def test_the_recorded_step_is_the_eager_one_and_the_cpus(there, data, monkeypatch):
    from understanding_lrs.training import image_lanes
    def trained(device, graph):
        monkeypatch.setenv('ULRS_GRAPH', graph); image_lanes.LANES.clear()
        return stage(make_networks(SPEC, [3, 4], 0.).to(device), there if device == 'cuda' else data, 2).run().networks.flat().cpu()
    recorded = trained('cuda', '1')
    assert image_lanes.LANES[0][1].graph is not None
    eager, cpu = trained('cuda', '0'), trained('cpu', '0')
    torch.testing.assert_close(recorded, eager, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(recorded, cpu, rtol=2e-2, atol=1e-3)

@needs_gpu
@pytest.mark.parametrize('graph', '10')
def test_nothing_waits_in_the_loop(there, monkeypatch, graph):
    "Adam, dropout, shifts, and a last batch that is smaller"
    from understanding_lrs.training import image_lanes
    monkeypatch.setenv('ULRS_GRAPH', graph)
    spec = replace(SPEC, dropout=.3)
    lane, = image_lanes.lanes(1, spec, there, image_lanes.LaneConfig(0., BATCH, recipe=RECIPE))
    lane.load(stage(make_networks(spec, [3], 0.).to('cuda'), there, 1, lr=(1e-3,)).networks, 0, torch.tensor(1e-3), augment_table(3, 0, 100, RECIPE.pad), there.x_train, 5)
    order = torch.from_numpy(epoch_order(3, 100, 0)).cuda()
    for b in order.split(BATCH): lane.step(b)
    kept = torch.cuda.get_sync_debug_mode()
    try:
        torch.cuda.set_sync_debug_mode('error')
        for b in order.split(BATCH):
            with lane.on(): lane.step(b)
    finally: torch.cuda.set_sync_debug_mode(kept)

@needs_gpu
def test_draws_on_a_gpu_survive_a_resume(there):
    nets = make_networks(replace(SPEC, dropout=.3), [3, 4], 0.).to('cuda')
    whole, half = stage(nets, there, 3).run(), stage(nets, there, 3).run(until=2)
    again = stage(nets, there, 3).load({k: v.clone() for k,v in half.state().items()}).run()
    torch.testing.assert_close(whole.networks.flat(), again.networks.flat(), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(whole.networks.flat(), stage(make_networks(SPEC, [3, 4], 0.).to('cuda'), there, 3).run().networks.flat(), atol=1e-3)

@needs_gpu
@pytest.mark.parametrize('op', RAND_OPS)
def test_operations_on_a_gpu_are_those_of_the_cpu(op, data):
    u = torch.from_numpy(stream('probe', 0).random((100, 3)))
    a, b = rand_op(data.x_train, op, 14, u), rand_op(data.x_train.cuda(), op, 14, u).cpu()
    assert ((a.int() - b.int()).abs() <= 1).float().mean() > .99
