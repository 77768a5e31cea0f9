"""The search finds what is known beforehand: the limit 2/lambda of a quadratic, the best rate of a constructed task; it goes on from its record."""
import json, math, os, socket, subprocess, sys
import pytest, torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from understanding_lrs import Closures, RegimeReport, find_regimes
from understanding_lrs.core.errors import InputError

class Bowl:
    "Gradient descent on lambda w^2/2; the metric is a function of the rate that was held before the anneal"
    def __init__(self, curvature=1., best=None):
        self.curvature, self.best, self.w, self.held, self.steps = curvature, best, 1., 0., 0

    def step(self, rate):
        self.steps += 1
        self.held = max(self.held, rate)
        loss = self.curvature*self.w*self.w/2
        self.w -= rate*self.curvature*self.w
        return loss

    def save(self): return self.w, self.held

    def load(self, state): self.w, self.held = state

    def val(self):
        if self.best is None: return self.w*self.w
        return 0. if not self.held else 1. - .1*math.log10(self.held/self.best)**2

    def closures(self): return Closures(self.step, self.save, self.load, self.val)

GRID = tuple(10**(k/2) for k in range(-6, 1))

@pytest.mark.parametrize('curvature', [5., 50.])
def test_a_quadratic_diverges_at_two_over_its_curvature(curvature):
    r = find_regimes(Bowl(curvature).closures(), steps=4000, better=min, rates=GRID, progress=False)
    assert r.divergence.lo <= 2/curvature <= r.divergence.hi and r.divergence.hi/r.divergence.lo < 3.2

@pytest.mark.parametrize('best', [.002, .02, .3])
def test_a_constructed_best_rate_is_found(best):
    r = find_regimes(Bowl(1., best).closures(), steps=2000, rates=GRID, progress=False)
    assert r.lr.lo <= best <= r.lr.hi and r.window.lo <= best <= r.window.hi and not r.divergence

class Product(Bowl):
    "What counts is rate times steps, up to a largest stable rate; `peak` falls again beyond the best product"
    def __init__(self, product, peak, limit=1.):
        super().__init__(.1)
        self.product, self.peak, self.limit, self.sum = product, peak, limit, 0.

    def step(self, rate):
        self.sum += rate
        return super().step(rate)

    def save(self): return self.w, self.held, self.sum

    def load(self, state): self.w, self.held, self.sum = state

    def val(self):
        if not self.sum or self.held > self.limit: return 0.
        far = math.log10(self.sum/self.product)
        return 1. - .1*(far**2 if self.peak else min(0., far)**2)

def test_a_rate_whose_product_with_steps_is_best_keeps_the_product():
    r = find_regimes(Product(20., peak=True, limit=10.).closures(), steps=4000, rates=GRID, progress=False)
    assert 'hardly more' in r.lr.how and .4 < r.lr.value*4000/20. < 2.5

def test_on_a_plateau_the_middle_is_taken_and_falls():
    "rates from 3e-3 to 1 are equally good at the horizon, and from 3e-2 on in branches of a tenth of it"
    r = find_regimes(Product(12., peak=False).closures(), steps=4000, rates=GRID, progress=False)
    assert r.window.lo < 4e-3 < r.lr.value < .3 and r.window.hi >= 1.

def test_what_learns_nothing_at_first_goes_on():
    "the first round is at chance, the second one learns"
    class Late(Product):
        def val(self): return 0. if self.steps_of_branch < 150 else super().val()
        def step(self, rate):
            self.steps_of_branch += 1
            return super().step(rate)
        def save(self): return super().save(), self.steps_of_branch
        def load(self, state):
            super().load(state[0])
            self.steps_of_branch = state[1]
    late = Late(12., peak=False)
    late.steps_of_branch = 0
    r = find_regimes(late.closures(), steps=1500, rates=GRID, progress=False)
    assert r.lr and {b.round for b in r.branches if b.metric > 0} == {1} and 'nothing_learned' not in [m.name for m in r.messages]

def test_the_grid_grows_to_a_best_rate_outside():
    r = find_regimes(Bowl(.05, .3).closures(), steps=2000, rates=GRID[:4], progress=False)
    assert r.lr.lo <= .3 <= r.lr.hi

@pytest.mark.parametrize('budget', [.5, 1., 2.])
def test_the_cost_is_the_budget(budget):
    bowl = Bowl(.05, .02)
    r = find_regimes(bowl.closures(), steps=20_000, budget=budget, rates=GRID, progress=False)
    assert abs(r.cost/budget - 15/16) < .02 and bowl.steps == round(r.cost*20_000) + 5 # and 1 with one rate more

@pytest.mark.parametrize('rates', [4, 7])
def test_a_grid_that_grows_stays_within_the_budget(rates):
    r = find_regimes(Bowl(.002, 300.).closures(), steps=20_000, rates=GRID[7 - rates:], progress=False)
    assert len([b for b in r.branches if b.round == 0]) == rates + 4 and r.cost < 1.5*1.03

def test_the_shortest_horizon_gets_an_answer():
    report = find_regimes(Bowl(.05, .02).closures(), steps=10, budget=.1, rates=GRID, progress=False)
    assert report.plan.lengths == (2, 3) and 'short' in [m.name for m in report.messages] and str(report)

def test_a_report_reads_itself():
    r = find_regimes(Bowl(2.).closures(), steps=2000, better=min, rates=GRID, progress=False)
    again = RegimeReport.from_json(r.to_json())
    assert str(again) == str(r) and json.loads(r.to_json())['found']['lr']['value'] == r.lr.value
    assert '<svg' not in r._repr_html_() and 'data:image/svg+xml' in r._repr_html_() and r.plot() is not None

def test_a_schedule_is_constant_and_decays():
    r = find_regimes(Bowl(.05, .02).closures(), steps=2000, rates=GRID, warmup=4, progress=False)
    groups = [dict(params=[nn.Parameter(torch.zeros(1))], lr=1.), dict(params=[nn.Parameter(torch.zeros(1))], lr=.1)]
    opt = torch.optim.SGD(groups)
    schedule, seen = r.schedule(opt, 100), []
    for _ in range(100):
        seen.append([g['lr'] for g in opt.param_groups])
        opt.step()
        schedule.step()
    top = r.lr.value
    assert seen[0][0] == pytest.approx(top/5) and seen[50] == pytest.approx([top, top/10])
    assert seen[79][0] == pytest.approx(top) and seen[99][0] == pytest.approx(top/20)

def network_task(seed=0):
    torch.manual_seed(seed)
    x = torch.randn(256, 4)
    y = (x[:, 0]*x[:, 1] > 0).long()
    loader = DataLoader(TensorDataset(x[:192], y[:192]), 16, shuffle=True)
    net = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Dropout(.1), nn.Linear(16, 2))
    opt = torch.optim.SGD(net.parameters(), lr=.1, momentum=.9)
    def accuracy(network): return (network(x[192:]).argmax(1) == y[192:]).float().mean().item()
    return net, opt, nn.CrossEntropyLoss(), loader, accuracy

def numbers(report): return str([(b.rate, b.round, b.repeat, b.metric, b.loss, b.low) for b in report.branches]) # NaN equals NaN

def test_twice_the_same():
    a, b = (find_regimes(*network_task(), steps=400, progress=False) for _ in range(2))
    assert numbers(a) == numbers(b)

@pytest.mark.parametrize('after', [1, 8, 12])
def test_a_search_that_was_stopped_goes_on(tmp_path, after):
    whole = find_regimes(*network_task(), steps=400, progress=False)
    def stop(report):
        if len(report.branches) == after: raise KeyboardInterrupt
    file = str(tmp_path/'search.json')
    with pytest.raises(KeyboardInterrupt): find_regimes(*network_task(), steps=400, progress=stop, file=file)
    assert len(RegimeReport.from_json(open(file).read()).branches) == after
    more = find_regimes(*network_task(), steps=400, progress=False, file=file)
    assert numbers(more) == numbers(whole)
    assert numbers(find_regimes(*network_task(), steps=400, progress=False, file=file)) == numbers(whole)

def test_a_record_of_another_search_is_refused(tmp_path):
    file = str(tmp_path/'search.json')
    find_regimes(Bowl(.05, .02).closures(), steps=400, rates=GRID, progress=False, file=file)
    with pytest.raises(InputError, match='another search: steps differ'):
        find_regimes(Bowl(.05, .02).closures(), steps=800, rates=GRID, progress=False, file=file)

def test_a_record_of_another_policy_is_refused(tmp_path):
    file = tmp_path/'search.json'
    find_regimes(Bowl(.05, .02).closures(), steps=400, rates=GRID, progress=False, file=str(file))
    record = json.loads(file.read_text())
    record['key']['policy'] = dict(record['key']['policy'], refine=True, shares=[.03, .06, .1])
    file.write_text(json.dumps(record))
    with pytest.raises(InputError, match='another search: policy differ'):
        find_regimes(Bowl(.05, .02).closures(), steps=400, rates=GRID, progress=False, file=str(file))

def test_states_that_lie_on_disk_give_the_same_and_go(tmp_path):
    a = find_regimes(*network_task(), steps=400, progress=False)
    b = find_regimes(*network_task(), steps=400, progress=False, memory=0, folder=str(tmp_path))
    assert numbers(a) == numbers(b) and not list(tmp_path.iterdir())

def test_groups_keep_their_ratio():
    net, _, loss, loader, val = network_task()
    opt = torch.optim.SGD([dict(params=net[0].parameters(), lr=.01), dict(params=net[3].parameters(), lr=.1)], lr=.1)
    seen = set()
    opt.register_step_post_hook(lambda o, *_: seen.add(round(o.param_groups[0]['lr']/o.param_groups[1]['lr'], 6)))
    find_regimes(net, opt, loss, loader, val, steps=100, progress=False)
    assert seen == {.1} and [g['lr'] for g in opt.param_groups] == [.01, .1]

DDP = """
import json, os, sys
import torch
from torch import distributed, nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset
from understanding_lrs import find_regimes
distributed.init_process_group('gloo')
torch.manual_seed(0)
x = torch.randn(256, 4)
y = (x[:, 0]*x[:, 1] > 0).long()
data = TensorDataset(x[:192], y[:192])
loader = DataLoader(data, 16, sampler=DistributedSampler(data))
net = nn.parallel.DistributedDataParallel(nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2)))
opt = torch.optim.SGD(net.parameters(), lr=.1, momentum=.9)
before = [p.clone() for p in net.parameters()]
rank = distributed.get_rank()
def val(network): return (network.module(x[192:]).argmax(1) == y[192:]).float().mean().item() + .001*rank
r = find_regimes(net, opt, nn.CrossEntropyLoss(), loader, val, steps=200, accumulate=2, progress=False)
same = all(map(torch.equal, before, net.parameters()))
rows = [(b.rate, b.round, b.metric, b.loss) for b in r.branches]
open(sys.argv[1] + f'/{rank}.json', 'w').write(json.dumps([rows, same, r.lr.value]))
distributed.destroy_process_group()
"""

def test_two_processes_agree(tmp_path, root):
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    env = dict(os.environ, MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port), WORLD_SIZE='2', PYTHONPATH=str(root), OMP_NUM_THREADS='1')
    (tmp_path/'ddp.py').write_text(DDP)
    both = [subprocess.Popen([sys.executable, tmp_path/'ddp.py', tmp_path], env=dict(env, RANK=str(r)), stderr=subprocess.PIPE) for r in (0, 1)]
    for p in both:
        _, err = p.communicate(timeout=300)
        assert p.returncode == 0, err.decode()[-2000:]
    a, b = (json.loads((tmp_path/f'{r}.json').read_text()) for r in (0, 1))
    assert a == b and a[1] and a[2]
