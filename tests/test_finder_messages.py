"""Each message comes when it should, and not otherwise; what cannot be searched is refused in one line."""
import math, random
import pytest, torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from understanding_lrs import Closures, find_regimes
from understanding_lrs.app.cli import main
from understanding_lrs.core.errors import InputError
from understanding_lrs.finder.find import Options, Progress
from understanding_lrs.finder.policy import Branch, Plan, jobs
from understanding_lrs.finder.result import MESSAGES, RegimeReport, messages_of

RATES = tuple(10**(k/2) for k in range(-6, 1))
PLAN = Plan(RATES, (40, 80), start=.1, sign=1, steps=3000, loss=2.)

def good(job): # best at 0.03
    value = .9 - .1*math.log10(job.rate/.03)**2 + .002*job.repeat + .01*job.round
    return dict(metric=value, low=.5 - .3*value, loss=.4 + .1*abs(math.log10(job.rate/.003)))

def told(plan=PLAN, **changes): # name of a field -> function of (job, value as it would be)
    "Messages of a search whose branches are changed"
    branches = []
    while todo := jobs(plan, branches):
        for job in todo:
            values = good(job) | dict(diverged=False)
            for name, change in changes.items(): values[name] = change(job, values[name])
            branches.append(Branch(job.rate, job.round, job.repeat, **values))
    return [m.name for m in messages_of(plan, branches, 3000)]

def test_a_good_search_says_nothing(): assert told() == []

SHORT = Plan(RATES, (10, 20), start=.1, sign=1, steps=3000, loss=2.)
CASES = dict(
    diverged=dict(diverged=lambda job, v: True),
    nothing_learned=dict(low=lambda job, v: 1.99),
    short=dict(plan=SHORT),
    edge=dict(metric=lambda job, v: .9 + .1*math.log10(job.rate) + .002*job.repeat),
    tied=dict(metric=lambda job, v: v + (.2*(-1)**job.repeat if job.round == 1 else 0)),
    no_threshold=dict(loss=lambda job, v: 1/job.rate),
    overfit=dict(metric=lambda job, v: v - .2*job.round),
    direction=dict(low=lambda job, v: v + .3*good(job)['metric']*2))

@pytest.mark.parametrize('name', CASES)
def test_it_is_said(name): assert name in told(**CASES[name])

def test_each_message_is_said_once():
    for changes in CASES.values():
        names = told(**changes)
        assert len(names) == len(set(names))

def task(**changes):
    torch.manual_seed(0)
    x = torch.randn(128, 4)
    y = (x.sum(1) > 0).long()
    net = nn.Linear(4, 2)
    def accuracy(network): return (network(x[96:]).argmax(1) == y[96:]).float().mean().item()
    made = dict(model=net, optimizer=torch.optim.SGD(net.parameters(), lr=.1), loss_fn=nn.CrossEntropyLoss(),
                train_loader=DataLoader(TensorDataset(x[:96], y[:96]), 8, shuffle=True), val=accuracy, steps=100, progress=False)
    return made | changes

def names(report): return [m.name for m in report.messages]

class Restless(torch.utils.data.Dataset):
    "Other numbers whenever it is asked, and no seed reaches it"
    def __init__(self): self.source = random.SystemRandom()
    def __len__(self): return 40
    def __getitem__(self, i): return torch.full((4,), self.source.random()), i % 2

def fixed(n): return DataLoader(TensorDataset(torch.randn(n, 4), torch.arange(n) % 2), 2)

LOADERS = dict(not_repeatable=DataLoader(Restless(), 8, shuffle=True), one_batch=[(torch.randn(8, 4), torch.arange(8) % 2)],
               fixed_order=fixed(200))

@pytest.mark.parametrize('name', LOADERS)
def test_an_unusual_loader_is_named(name):
    assert name in names(find_regimes(**task(train_loader=LOADERS[name])))
    assert not {*LOADERS} & {*names(find_regimes(**task()))}

def test_weight_decay_that_branches_do_not_show():
    made = task()
    def said(decay):
        optimizer = torch.optim.SGD(made['model'].parameters(), lr=.1, weight_decay=decay)
        report = find_regimes(**made | dict(optimizer=optimizer, steps=1000, rates=(1e-3, 1e-2, .1)))
        return 'weight_decay' in names(report), 1/(decay*report.lr.value), report.plan.lengths
    is_said, scale, lengths = said(1e-2)
    assert is_said == (lengths[1] < scale < 3000)
    assert not said(1e-6)[0]

def test_all_messages_are_tested():
    assert {*MESSAGES} == {*CASES, *LOADERS, 'weight_decay', 'scheduler'} # the scheduler's: tests/test_finder_restore.py

def nan_loss(*_): return torch.tensor(math.nan, requires_grad=True)

REFUSED = {
    'is empty': dict(train_loader=[]), 'read only once': dict(train_loader=iter([1])), 'val is missing': dict(val=None),
    'not finite before any training': dict(loss_fn=nan_loss), 'val gave nan': dict(val=lambda network: math.nan),
    'give steps=': dict(steps=None), 'expected max or min': dict(better='more'), 'must be distinct': dict(rates=(.1, .1)),
    "did you mean 'accumulate'": dict(acumulate=2), 'cannot be saved': dict(extra=(3,)), 'give batch_loss=': dict(loss_fn=None),
    'no parameter of the model': dict(model=nn.Linear(4, 2)), 'model: expected a network': dict(model=nn.functional.relu),
    'optimizer: expected one of torch': dict(optimizer='sgd'), 'val: expected a function': dict(val=.5),
    'val: expected a number, got Tensor': dict(val=lambda network: torch.zeros(2)),
    'val: expected a number, got NoneType': dict(val=lambda network: None),
    r'the loss has shape \(8,\)': dict(loss_fn=nn.CrossEntropyLoss(reduction='none')),
    'the loss: expected a tensor': dict(loss_fn=lambda *_: 1.), 'there is no folder': dict(file='nowhere/search.json'),
    'memory must be a positive number': dict(memory='1 GB'), 'scaler: expected one of torch': dict(scaler=True)}

@pytest.mark.parametrize('words', REFUSED)
def test_what_cannot_be_searched_is_refused(words):
    with pytest.raises(InputError, match=words): find_regimes(**task(**REFUSED[words]))

def test_a_step_that_moves_the_rate_is_refused():
    made = task()
    schedule = torch.optim.lr_scheduler.StepLR(made['optimizer'], 1)
    made['optimizer'].register_step_post_hook(lambda *_: schedule.step())
    with pytest.raises(InputError, match='such as a scheduler'): find_regimes(**made)

def test_a_wrong_direction_is_named():
    made = task()
    x, y = made['train_loader'].dataset.tensors
    def loss(network): return nn.functional.cross_entropy(network(x), y).item()
    report = find_regimes(**made | dict(val=loss, better=max, steps=1000, rates=(1e-4, 1e-3, 1e-2, .1)))
    assert 'direction' in names(report) and not report.lr
    assert report.advice[0].endswith('is the direction right?')

def test_closures_need_rates():
    with pytest.raises(InputError, match='give rates='): find_regimes(Closures(None, None, None, None), steps=100)

def test_a_report_without_a_rate_shows_itself():
    report = RegimeReport(PLAN, [Branch(r, 0, metric=.1, low=2.) for r in RATES], 3000)
    assert len(report.advice) == 1 and 'give at least 12,000 steps' in report.advice[0] and 'No advice' in str(report) and report._repr_html_()
    with pytest.raises(InputError, match='no rate to schedule'):
        RegimeReport(PLAN, [Branch(r, 0, diverged=True) for r in RATES], 3000).schedule(None)

SCRIPT = """
import torch
from torch import nn
def make():
    net = nn.Linear(2, 1)
    x = torch.randn(64, 2)
    batches = [(x[i:i + 8], x[i:i + 8].sum(1, keepdim=True)) for i in range(0, 64, 8)]
    def error(net): return nn.functional.mse_loss(net(x), x.sum(1, keepdim=True)).item()
    torch.manual_seed(0)
    return dict(model=net, optimizer=torch.optim.SGD(net.parameters(), lr=.1), loss_fn=nn.MSELoss(), train_loader=batches, val=error)
"""

def test_the_command(tmp_path, capsys):
    (tmp_path/'train.py').write_text('import torch; torch.manual_seed(0)\n' + SCRIPT)
    words = ['regimes', f'{tmp_path}/train.py:make', '--steps', '300', '--better', 'min', '--file', f'{tmp_path}/a.json']
    assert main(words) == 0 and 'Pre-train at a constant rate' in capsys.readouterr().out
    assert main([*words, '--json']) == 0 and '"found"' in capsys.readouterr().out
    for bad, said in ((f'{tmp_path}/train.py:mak', "did you mean 'make'"), (f'{tmp_path}/no.py:make', 'expected FILE:FUNCTION')):
        assert main(['regimes', bad, '--steps', '300']) == 2 and said in capsys.readouterr().err

def test_the_command_that_was_stopped_says_how_to_go_on(tmp_path, capsys):
    stopping = SCRIPT.replace('def error(net): return', """calls = []
    def error(net):
        calls.append(0)
        if len(calls) == 4: raise KeyboardInterrupt
        return""")
    (tmp_path/'train.py').write_text(stopping)
    words = ['regimes', f'{tmp_path}/train.py:make', '--steps', '300', '--better', 'min', '--file', f'{tmp_path}/a.json']
    assert main(words) == 130 and 'the same command goes on from' in capsys.readouterr().err

def test_progress_counts_what_was_done_before(capsys):
    progress = Progress(Options(steps=100, budget=1.))
    progress.before = 60
    progress(20, force=True)
    assert '80%, 80 steps' in capsys.readouterr().err

def test_a_last_round_that_diverged_leaves_the_one_before():
    branches = []
    while todo := jobs(PLAN, branches):
        branches += [Branch(j.rate, j.round, j.repeat, diverged=j.round == 1, **(good(j) if j.round < 1 else {})) for j in todo]
    report = RegimeReport(PLAN, branches, 3000)
    assert report.lr.lo <= .03 <= report.lr.hi and '40 steps' in report.lr.how and report._repr_html_() and str(report)

def test_what_has_all_diverged_is_shown():
    report = RegimeReport(PLAN, [Branch(r, 0, diverged=True) for r in RATES], 3000)
    assert not report.lr and 'every branch diverged' in report.advice[0] and report._repr_html_()
