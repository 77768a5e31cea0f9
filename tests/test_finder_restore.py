"""After a search everything is as before, bit for bit, however it ended."""
import itertools, random, signal
import numpy as np, pytest, torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from understanding_lrs import Closures, find_regimes
from understanding_lrs.finder.snapshot import StateStore

class Net(nn.Module):
    "Everything that a forward pass may change"
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(.2))
        self.head = nn.Linear(8, 2)
        self.frozen = nn.BatchNorm1d(2).eval()
        self.register_buffer('seen', torch.zeros(()), persistent=False)
        self.calls, self.cache = 0, torch.zeros(2)

    def forward(self, x):
        self.calls += 1
        self.seen = self.seen + len(x) # another tensor in its place
        self.cache = torch.ones(2)
        self.late = torch.ones(1)
        return self.frozen(self.head(self.body(x)))

OPTIMIZERS = dict(
    sgd=lambda ps: torch.optim.SGD(ps, lr=.1, momentum=.9, weight_decay=1e-4),
    adam=lambda ps: torch.optim.Adam(ps, lr=.01),
    adamw=lambda ps: torch.optim.AdamW(ps, lr=.01, amsgrad=True))

def make(optimizer='sgd'):
    "A training that has been going on for a while, with gradients in it"
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    x = torch.randn(96, 4)
    y = (x.sum(1) > 0).long()
    loader = DataLoader(TensorDataset(x[:64], y[:64]), 8, shuffle=True, generator=torch.Generator().manual_seed(5))
    net = Net()
    opt = OPTIMIZERS[optimizer](net.parameters())
    for bx, by in loader:
        opt.zero_grad()
        nn.functional.cross_entropy(net(bx), by).backward()
        opt.step()
    net.head.bias.grad = None
    def val(network): return (network(x[64:]).argmax(1) == y[64:]).float().mean().item()
    return net, opt, nn.CrossEntropyLoss(), loader, val

def everything(net, opt, loader, *others):
    "A copy of all that training touches, in one comparable list"
    def plain(v):
        if isinstance(v, torch.Tensor): return v.dtype, tuple(v.shape), v.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        if isinstance(v, dict): return [(k, plain(x)) for k, x in v.items()]
        if isinstance(v, (list, tuple)): return [plain(x) for x in v]
        if isinstance(v, np.ndarray): return v.tobytes()
        return v if isinstance(v, (int, float, str, bool, type(None))) else repr(type(v))
    modules = [(name, type(m).__name__, plain(m._parameters), plain(m._buffers),
                [(k, plain(v)) for k, v in vars(m).items() if not isinstance(v, (dict, set))]) for name, m in net.named_modules()]
    grads = [plain(p.grad) for p in net.parameters()]
    ids = [id(p) for p in net.parameters()], [id(b) for b in net.buffers()]
    generators = [plain(random.getstate()), plain(np.random.get_state()), plain(torch.get_rng_state()), plain(loader.generator.get_state())]
    helpers = [plain(o.state_dict()) for o in others]
    groups = [[(k, plain(v)) for k, v in g.items() if k != 'params'] for g in opt.param_groups]
    return modules, grads, ids, plain(opt.state_dict()), groups, generators, helpers

def search(task, **options): return find_regimes(*task, **dict(steps=200, progress=False) | options)

@pytest.mark.parametrize('optimizer', OPTIMIZERS)
@pytest.mark.parametrize('options', [dict(), dict(amp='bf16'), dict(accumulate=2, clip=.5), dict(memory=0)], ids=['plain', 'bf16', 'accumulate', 'disk'])
def test_everything_is_as_before(optimizer, options, tmp_path):
    net, opt, loss, loader, val = task = make(optimizer)
    before = everything(net, opt, loader)
    search(task, folder=str(tmp_path), **options)
    assert everything(net, opt, loader) == before and not list(tmp_path.iterdir())

def test_training_goes_on_as_if_nothing_had_happened():
    def train(task, steps=10):
        net, opt, loss, loader, _ = task
        batches = itertools.chain.from_iterable(loader for _ in range(9))
        for bx, by in itertools.islice(batches, steps):
            opt.zero_grad()
            loss(net(bx), by).backward()
            opt.step()
        return [p.clone() for p in net.parameters()]
    plain = train(make('adam'))
    task = make('adam')
    search(task)
    assert all(map(torch.equal, plain, train(task)))

def test_schedulers_scalers_and_averages():
    net, opt, loss, loader, val = task = make('sgd')
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(opt, 100)
    opt.step()
    scheduler.step()
    ema = torch.optim.swa_utils.AveragedModel(net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(.9))
    scaler = torch.amp.GradScaler('cpu', init_scale=16., growth_interval=3)
    before = everything(net, opt, loader, scheduler, ema, scaler)
    r = search(task, scheduler=scheduler, ema=ema, scaler=scaler, amp='bf16')
    assert everything(net, opt, loader, scheduler, ema, scaler) == before and 'scheduler' in [m.name for m in r.messages]

class Stop(Exception): pass

def failing(task, place, error):
    "The same task, which raises somewhere"
    net, opt, loss, loader, val = task
    count = dict(loss=0, val=0, step=0)
    def counted(name, f):
        def call(*args):
            count[name] += 1
            if (name, count[name]) == place:
                if error is KeyboardInterrupt: signal.raise_signal(signal.SIGINT)
                raise error
            return f(*args)
        return call
    if place[0] == 'step': opt.register_step_post_hook(counted('step', lambda *_: None))
    return net, opt, counted('loss', loss), loader, counted('val', val)

# at the start, in the first branch, in a constant part, in an anneal, in a later round, in a metric, in the middle of a step
PLACES = ('loss', 1), ('loss', 6), ('loss', 12), ('loss', 60), ('loss', 150), ('val', 1), ('val', 2), ('val', 9), ('step', 3), ('step', 100)

@pytest.mark.parametrize('error', [Stop, KeyboardInterrupt])
@pytest.mark.parametrize('place', PLACES, ids=lambda p: f'{p[0]}-{p[1]}')
def test_an_exception_leaves_nothing_behind(place, error, tmp_path):
    net, opt, loss, loader, val = task = make('adamw')
    before = everything(net, opt, loader)
    with pytest.raises(error): search(failing(task, place, error), memory=0, folder=str(tmp_path))
    hooks = opt._optimizer_step_post_hooks
    hooks.clear()
    assert everything(net, opt, loader) == before and not list(tmp_path.iterdir())

@pytest.fixture
def interrupts():
    "Ctrl-C raises, as in a process of a user; those that share tests between workers ignore it"
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)

@pytest.mark.parametrize('method', ['save', 'load', 'restore'])
@pytest.mark.usefixtures('interrupts')
def test_ctrl_c_while_states_are_saved_and_put_back(method, monkeypatch):
    from understanding_lrs.finder.training import TorchLoop
    net, opt, loss, loader, val = task = make('adam')
    before = everything(net, opt, loader)
    original, count = getattr(TorchLoop, method), [0]
    def interrupted(self, *args):
        count[0] += 1
        if method == 'restore' or count[0] == 5: signal.raise_signal(signal.SIGINT)
        return original(self, *args)
    monkeypatch.setattr(TorchLoop, method, interrupted)
    with pytest.raises(KeyboardInterrupt): search(task)
    assert everything(net, opt, loader) == before

def test_a_scaler_in_the_middle_of_a_step():
    net, opt, loss, loader, val = task = make('sgd')
    scaler = torch.amp.GradScaler('cpu', init_scale=16.)
    opt.register_step_pre_hook(lambda *_: (_ for _ in ()).throw(Stop))
    with pytest.raises(Stop): search(task, scaler=scaler, clip=1.)
    opt._optimizer_step_pre_hooks.clear()
    search(task, scaler=scaler, clip=1.) # an unscaled optimizer would be refused here

def test_closures_are_put_back_and_so_is_randomness():
    value = [3.]
    def step(rate):
        value[0] -= rate*value[0]*random.random()
        return value[0]*value[0]
    def fail(): raise Stop
    random.seed(4), np.random.seed(4), torch.manual_seed(4)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    loop = Closures(step, lambda: value[0], lambda state: value.__setitem__(0, state), fail)
    with pytest.raises(Stop): find_regimes(loop, steps=100, rates=(.1, 1.), progress=False)
    assert value == [3.] and (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before

def test_a_bfloat16_network_keeps_its_state_in_float32():
    "load_state_dict of an optimizer would cast it"
    net = nn.Linear(4, 2).bfloat16()
    opt = torch.optim.Adam(net.parameters(), lr=1e-3)
    for p in net.parameters():
        opt.state[p] = dict(step=torch.tensor(3.), exp_avg=torch.randn(p.shape), exp_avg_sq=torch.rand(p.shape))
    before = [{k: v.clone() for k, v in s.items()} for s in opt.state.values()]
    from understanding_lrs.finder.snapshot import Keeper, Parts
    keeper = Keeper(Parts(net, opt))
    start = keeper.save()
    opt.state.clear()
    keeper.restore(start)
    for a, b in zip(before, opt.state.values()):
        assert all(torch.equal(a[k], b[k]) and a[k].dtype == b[k].dtype for k in a)

def test_a_store_over_its_cap_gives_what_it_was_given(tmp_path):
    state = dict(a=torch.randn(10), b=[1, ('x', torch.ones(2, dtype=torch.bfloat16))])
    with StateStore(cap=0, folder=str(tmp_path)) as states:
        states.put('one', state)
        states.put('one', state)
        back = states.get('one')
        assert torch.equal(back['a'], state['a']) and back['b'][1][1].dtype == torch.bfloat16 and 'one' in states
        assert len(list(next(tmp_path.iterdir()).iterdir())) == 1
    assert not list(tmp_path.iterdir())
