"""A network and data of the user's own, from one Python file, are a study like any other; what is wrong with the file is said before any work."""
import numpy as np, pandas as pd, pytest, torch
from understanding_lrs.core.errors import InputError, OutOfTime
from understanding_lrs.data.arrays import Arrays
from understanding_lrs.runs.store import Run
from understanding_lrs.studies.own_task import kept_file, load_task
from understanding_lrs.studies.registry import protocols, resolved, study_of
from understanding_lrs.studies.trial import live

TOKENS = '''
import numpy as np, torch
from torch import nn
from understanding_lrs.data.arrays import Arrays

def data():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 6, (160, 5))
    y = (x.sum(1) > 12).astype(int)
    return Arrays('sums', x[:100], y[:100], x[100:], y[100:])

def network(seed):
    return nn.Sequential(nn.Embedding(6, 8), nn.Flatten(), nn.Linear(40, 16, bias=False), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, 2))
'''
CURVE = '''
def data(): return Arrays('curve', np.linspace(-1, 1, 80)[:, None], np.linspace(-1, 1, 80)[:, None]**2, np.zeros((4, 1)), np.zeros((4, 1)))
def network(seed): return nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))
def loss(z, y): return (z - y).square().mean(1)
def right(z, y): return (z - y).abs()[:, 0] < .2
'''

@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch): monkeypatch.setenv('ULRS_CACHE', str(tmp_path/'cache'))

def written(folder, text, name='mine.py'):
    (folder/name).write_text(text)
    return str(folder/name)

def of(data, plr=1e-2, **changes):
    return resolved(protocols('own', 'smoke', plrs=[plr], train_seeds=[1, 2], overrides=dict(data=data) | changes))[0]

@pytest.mark.parametrize('changes', [{}, dict(sphere=True), dict(optimizer='adam', momentum=.8), dict(ft_orders=2)])
def test_tokens_run_the_whole_study(tmp_path, changes):
    trial = live(of(written(tmp_path, TOKENS), **changes))
    m = trial.tables['metrics']
    assert set(m.data) == {'sums'} and {'pretrain', 'average', 'finetune'} <= set(m.stage)
    assert m[m.metric == 'chance'].value.eq(50).all()
    assert set(trial.tables) == {'metrics', 'curves', 'geometry', 'norms'} | ({'sharpness'} if changes.get('sphere') else set()) | (
        {'edges'} if changes.get('ft_orders') else set())
    assert trial.provenance()['task_source'] == TOKENS

def test_training_is_that_of_torch(tmp_path):
    "one epoch of SGD with momentum, in the order of the seed"
    from understanding_lrs.core.seeds import epoch_order
    data = written(tmp_path, TOKENS)
    task, trial = load_task(data), live(of(data, epochs=1, level=0.))
    torch.manual_seed(1)
    net = task.network(1)
    optimizer = torch.optim.SGD(net.parameters(), 1e-2, momentum=.9)
    for b in torch.as_tensor(epoch_order(1, 100, 0)).split(32):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(task.arrays.x_train[b]), task.arrays.y_train[b]).backward()
        optimizer.step()
    ours = trial.points['pretrain']
    for name,p in net.named_parameters(): torch.testing.assert_close(ours.state[name][0], p.detach(), atol=1e-6, rtol=1e-5)

def test_a_loss_of_ones_own_is_what_is_learned(tmp_path):
    trial = live(of(written(tmp_path, TOKENS + CURVE), .1, epochs=60, ft_epochs=1))
    task, nets = trial.own, trial.points['pretrain']
    losses = trial.tables['curves'].query("metric == 'train_loss' and stage == 'pretrain'")
    first, last = (losses[losses.step == s].value.mean() for s in (1, 60))
    assert last < first/4
    w = {n: v[0] for n,v in nets.state.items() if n in dict(task.network(1).named_parameters())}
    z = torch.func.functional_call(task.network(1), w, (task.arrays.x_test,))
    row = trial.tables['curves'].query("metric == 'test_loss' and stage == 'pretrain' and step == 60 and train_seed == 1")
    np.testing.assert_allclose(row.value.item(), (z - task.arrays.y_test).square().mean().item(), rtol=1e-5)

def test_stopped_and_gone_on_is_the_same(tmp_path):
    p = of(written(tmp_path, TOKENS), sphere=True, epochs=6)
    whole = live(p, Run(tmp_path/'a', p))
    with pytest.raises(OutOfTime): live(p, Run(tmp_path/'b', p), time_limit=0.)
    again = live(p, Run(tmp_path/'b', p))
    for name in ('metrics', 'curves', 'geometry'): pd.testing.assert_frame_equal(whole.tables[name], again.tables[name])

def test_a_run_keeps_its_file(tmp_path):
    "A changed file is another run; the old one still goes on from what was kept"
    data = written(tmp_path, TOKENS)
    before = of(data)
    after = of(written(tmp_path, TOKENS + '\n# changed'))
    assert before.key != after.key and load_task(before.settings['data']).source == TOKENS
    kept_file(before.settings['data']).unlink()
    with pytest.raises(InputError, match='give the path of its Python file once more'): load_task(before.settings['data'])

def test_data_that_changes_is_refused(tmp_path):
    values = tmp_path/'values.txt'
    values.write_text('1')
    text = TOKENS + "\nfrom pathlib import Path\ndef network(seed): return nn.Linear(1, 1)\n" + CURVE.replace(
        'np.zeros((4, 1)), np.zeros', f'np.full((4, 1), float(Path({str(values)!r}).read_text())), np.zeros')
    p = of(written(tmp_path, text))
    values.write_text('2')
    from understanding_lrs.studies.own_task import task_of_source
    task_of_source.cache_clear()
    with pytest.raises(InputError, match='data\\(\\) gives other data than before'): load_task(p.settings['data'])

@pytest.mark.parametrize('text, words', [
    ('def data(: pass', 'SyntaxError'), ('import no_such_module', 'no_such_module'), ('network = data = None', 'has no data'),
    (TOKENS + 'def data(): return 1', 'must give Arrays .* got int'), (TOKENS + 'def data(): return 1/0', 'data\\(\\): ZeroDivisionError'),
    (TOKENS + 'def network(seed): return None', 'must give an nn.Module, got NoneType'),
    (TOKENS + 'def network(seed): return nn.Flatten()', 'has no parameters'),
    (TOKENS + 'def network(seed): raise KeyError(seed)', 'network\\(1\\): KeyError'),
    (TOKENS + 'def network(seed): torch.manual_seed(0); return nn.Embedding(6, 2)', 'are the same'),
    (TOKENS + 'def network(seed): n = nn.Linear(5, 2); n.weight.data += float(np.random.rand()); return n', 'another one each time'),
    (TOKENS + 'def network(seed): return nn.Linear(5, 2)', 'network on inputs \\(4, 5\\) torch.int64'),
    (TOKENS + 'def network(seed): return nn.Embedding(6, 2)', 'must give logits \\(4, 2\\)'),
    (TOKENS + CURVE + 'del right', 'defines loss\\(\\) alone'), (TOKENS + CURVE + 'del right, loss', 'are no classes; define loss'),
    (TOKENS + CURVE + 'def right(z, y): return z', 'right\\(\\) must give one number for each of 4 samples'),
    (TOKENS + CURVE + 'def loss(z, y): return (z*float("nan"))[:, 0]', 'loss of an untrained network is nan')])
def test_wrong_files_are_one_line(tmp_path, text, words):
    with pytest.raises(InputError, match=words) as caught: of(written(tmp_path, text))
    assert '\n' not in str(caught.value) and 'mine.py' in str(caught.value)

@pytest.mark.parametrize('changes, words', [
    (dict(great_circle=True), 'needs a sphere'), (dict(momentum=1.), 'momentum'), (dict(optimizer='lion'), "unknown optimizer 'lion'"),
    (dict(batch=33), 'last batch of one'), (dict(rho=-1.), 'rho must be at least 0')])
def test_wrong_settings_are_one_line(tmp_path, changes, words):
    norm = TOKENS.replace('nn.LayerNorm(16)', 'nn.BatchNorm1d(16)')
    with pytest.raises(InputError, match=words): of(written(tmp_path, norm), **changes)

def test_a_sphere_needs_invariant_weights(tmp_path):
    with pytest.raises(InputError, match='no weight is scale-invariant'):
        of(written(tmp_path, TOKENS + CURVE), sphere=True)

def test_files_beside_can_be_imported(tmp_path):
    (tmp_path/'beside_mine.py').write_text('width = 16')
    assert of(written(tmp_path, 'from beside_mine import width\n' + TOKENS)).settings['data'].startswith('mine@')

def test_figures_are_those_of_arrays():
    from understanding_lrs.figures.registry import ARRAYS, IMAGES, SYNTHETIC, figures_of, kind_of
    assert [kind_of(study_of(s)) for s in ('own', 'vit_cifar10', 'synthetic')] == [ARRAYS, IMAGES, SYNTHETIC]
    assert {'regimes', 'finetune_and_swa', 'geometry'} <= {*figures_of(study_of('own'))} and 'bands' not in figures_of(study_of('own'))

def test_arrays_of_other_kinds(tmp_path):
    x = np.zeros((4, 2))
    for bad, words in [((x, [0]*4, x[:, :1], [0]*4), 'must be alike'), ((x, [0]*3, x, [0]*4), 'one row per sample'),
                       ((x + np.inf, [0]*4, x, [0]*4), '4 samples with NaN or infinite'), ((x, ['a']*4, x, [0]*4), 'must be numbers'),
                       ((x*1j, [0]*4, x, [0]*4), 'real numbers'), ((x[:0], [], x, [0]*4), 'at least one')]:
        with pytest.raises(ValueError, match=words): Arrays('bad', *bad)
