"""Training on a GPU: the recorded step is the eager one; rates, streams and number formats; what needs no GPU is tested without one."""
import contextlib, warnings
from dataclasses import replace
from types import SimpleNamespace
import pytest, torch
from understanding_lrs.app import bench_gpu, bench_timing
from understanding_lrs.app.bench_gpu import GpuCase
from understanding_lrs.probes import context as probe_context
from understanding_lrs.training import gpu_lanes, gpu_memory, image_data, image_lanes, networks
from understanding_lrs.data.images import Images
from understanding_lrs.data.loading import load_images
from understanding_lrs.data.channels import channel_stats
from understanding_lrs.networks.convnet import ConvNetSpec
from understanding_lrs.networks.resnet import ResNet18Spec
from understanding_lrs.training.image_epochs import EpochConfig, EvalConfig, epoch_, evaluate_nets
from understanding_lrs.training.image_lanes import LaneConfig, lanes, Step
from understanding_lrs.training.array_task import ArrayTask
from understanding_lrs.training.gpu_memory import step_bytes, what_fits
from understanding_lrs.training.image_data import numerics, resident
from understanding_lrs.training.networks import make_networks
from understanding_lrs.training.trainer import Schedule, Trainer
from understanding_lrs.core.seeds import batches, epoch_order
from understanding_lrs.core.sphere import elr_to_lr

GPU = torch.cuda.is_available()
needs_gpu = pytest.mark.skipif(not GPU, reason='no GPU, or not asked for by ULRS_TEST_GPU=1')
BATCH, SPECS = 32, (ResNet18Spec(8, 10, 8), ConvNetSpec(8, 10, 8))
SMALL = SPECS[0]
RHO = SMALL.default_radius()
by_arch = pytest.mark.parametrize('spec', SPECS, ids=lambda s: s.arch)

def digits(device): # 140 pictures: four batches and a rest of 12
    d = load_images('digits')
    d = replace(d, x_train=d.x_train[:140], y_train=d.y_train[:140])
    return resident(d, *channel_stats(d.x_train), device)

@pytest.fixture(scope='module')
def data(): return digits('cpu')

@pytest.fixture(scope='module')
def there(): return digits('cuda')

@pytest.fixture(autouse=True)
def fresh_lanes():
    image_lanes.LANES.clear()
    yield
    image_lanes.LANES.clear()

@pytest.fixture
def deterministic(monkeypatch): monkeypatch.setattr(torch.backends.cudnn, 'deterministic', True)

def rates(spec, *elrs): return torch.tensor([elr_to_lr(e, spec.default_radius()) for e in elrs])

def trained(spec, data, elr=1e-4, epochs=2, seeds=(1,), **kw):
    "networks after some epochs, and the running losses of each"
    nets, lr = make_networks(spec, list(seeds), spec.default_radius()).to(data.device), rates(spec, *([elr]*len(seeds)))
    return nets, torch.stack([epoch_(nets, data, e, lr, EpochConfig(spec.default_radius(), BATCH, engine='torch', **kw))[0] for e in range(epochs)])

def near(a, b, rel): assert (a - b).norm() <= rel*b.norm(), ((a - b).norm()/b.norm()).item()

# without a GPU

def test_the_step_is_the_epoch(data):
    "the function that is recorded, called by hand"
    nets, (loss,) = trained(SMALL, data, epochs=1, seeds=(3,))
    net, lr, out = image_lanes.module_of(SMALL), rates(SMALL, 1e-4)[0], torch.zeros(2, dtype=torch.float64)
    net.load_state_dict({n: v[0] for n,v in make_networks(SMALL, [3], RHO).state.items()}, strict=False)
    params = [dict(net.named_parameters())[n] for n in SMALL.layer_names()]
    for b in batches(torch.from_numpy(epoch_order(3, len(data.x_train), 0)), BATCH): Step(params, data, lr, out, RHO)(net.train(), b)
    assert torch.equal(net.flat(), nets.flat()[0]) and out[0].item()/len(data.x_train) == loss.item()

@pytest.mark.parametrize('device', ['cpu', pytest.param('cuda', marks=needs_gpu)])
@pytest.mark.parametrize('precision', ['fp32', 'bf16', pytest.param('tf32', marks=needs_gpu)])
def test_each_precision_trains(precision, device):
    "as fp32 does: weights are rounded anew at every step, not once an epoch"
    if precision == 'tf32' and (device == 'cpu' or torch.cuda.get_device_capability() < (8, 0)): pytest.skip('no tf32')
    d = digits(device)
    exact, loss = (trained(SMALL, d, 3e-4, 3, precision=p)[1][:, 0] for p in ('fp32', precision))
    assert loss[-1] < .5*loss[0] and loss.tolist() == pytest.approx(exact.tolist(), rel=.5)

def test_each_network_of_a_stack_has_its_own_weights_in_bf16(data):
    "in one format block, as looks and readings are"
    nets = make_networks(SMALL, [1, 2], RHO)
    both = evaluate_nets(nets, data.x_test, data.y_test, data, EvalConfig(engine='torch', precision='bf16'))[0]
    alone = [evaluate_nets(nets[k:k + 1], data.x_test, data.y_test, data, EvalConfig(engine='torch', precision='bf16'))[0].item() for k in (0, 1)]
    assert both.tolist() == alone and alone[0] != alone[1]

def test_streams_change_nothing_on_a_cpu(data):
    assert all(torch.equal(a, b) for a,b in zip(*([n.flat(), l] for n,l in (trained(SMALL, data, seeds=(1, 2, 3), streams=s) for s in (1, 2)))))

def test_kept_memory_is_counted_without_memory():
    "of a batch that no machine here could hold; as much as a small one takes, times the pictures"
    kept, weights = {}, step_bytes(SMALL, 3)*2 - step_bytes(SMALL, 6)
    def pack(t): kept[t.untyped_storage().data_ptr()] = t; return t
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t): image_lanes.module_of(SMALL).train()(torch.randn(3, 3, 8, 8))
    assert sum(t.untyped_storage().nbytes() for t in kept.values()) == step_bytes(SMALL, 3)
    assert step_bytes(SMALL, 10**6) - weights == 10**6*(step_bytes(SMALL, 6) - step_bytes(SMALL, 3))//3

@pytest.mark.parametrize('free, words', [
    (2**40, 'would fit: '), (3*2**30, 'would fit: .*batch'), (2**20, 'would fit: a smaller width')], ids=['much', 'little', 'next to none'])
def test_too_small_a_gpu_says_what_would_fit(data, monkeypatch, free, words):
    spec, seeds = replace(SMALL, width=32, size=32), [1, 2]
    big = resident(Images('noise', tuple('0123456789'), *(torch.zeros(256, 3, 32, 32, dtype=torch.uint8), torch.arange(256) % 10)*2), (.5,)*3, (.2,)*3)
    def no_room(*a): raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has ...")
    monkeypatch.setattr(image_lanes.Step, '__call__', no_room); monkeypatch.setattr(gpu_memory, 'free_bytes', lambda device: free)
    with pytest.raises(ValueError, match=words) as e:
        epoch_(make_networks(spec, seeds, 20.), big, 0, torch.ones(2), EpochConfig(20., 256, engine='torch', streams=2))
    text = str(e.value)
    assert '\n' not in text and '2 networks' in text and 'resnet18, width 32' in text and 'batch 256' in text and f'{free/2**30:.2f} GiB can be had' in text

def test_what_fits_fits(data, monkeypatch):
    "a tight GPU, and the batch that is named for it"
    nets = make_networks(SMALL, [1, 2], RHO)
    for free in (2**25, 2**26, 2**27):
        monkeypatch.setattr(gpu_memory, 'free_bytes', lambda device: free)
        b = int(what_fits(nets, data, 4096).split(' or batch ')[-1].split('fit: batch ')[-1])
        assert step_bytes(SMALL, b) <= free < step_bytes(SMALL, 2*b) + 2**24 # weights and pictures

@pytest.mark.parametrize('value, words', [('many', "ULRS_STREAMS must be a whole number, got 'many'"), ('0', 'streams must be at least 1, got 0')])
def test_bad_switches_are_one_clear_line(data, monkeypatch, value, words):
    monkeypatch.setenv('ULRS_STREAMS', value)
    with pytest.raises(ValueError, match=words): trained(SMALL, data, epochs=1)

def test_what_cannot_be_recorded_warns_once(data):
    lane, = lanes(1, SMALL, data, LaneConfig(RHO, BATCH))
    def fails(): raise RuntimeError("CUDA error: operation not permitted\nwhen stream is capturing")
    with pytest.warns(UserWarning, match='without a recorded step, slower: CUDA error: operation not permitted when stream') as w:
        assert lane._unless('without a recorded step', fails) is False
    assert len(w) == 1 and lane.graph is None
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert lane._unless('without a recorded step', lambda: None)
    def no_room(): raise torch.OutOfMemoryError('no')
    with pytest.raises(torch.OutOfMemoryError): lane._unless('without a recorded step', no_room)

class FakeStream:
    def __init__(self): self.waited = 0
    def wait_stream(self, other): self.waited += 1

@pytest.fixture
def pretended(data, monkeypatch):
    "pictures that say they are on a GPU, and a CUDA whose recordings are played back by calling the step"
    class There(image_data.Resident):
        device = 'cuda'
    played, current = [], []
    class Graph:
        def replay(self): played.append(self.lane); self.lane.train(self.lane.forward, self.lane.b)
    @contextlib.contextmanager
    def record(graph, stream):
        graph.lane = next(f for f in iter_lanes() if f.stream is stream)
        yield
    @contextlib.contextmanager
    def on(stream): current.append(stream); yield; current.pop()
    made, init = [], image_lanes.Lane.__init__
    def iter_lanes(): return made
    def seen(self, *a, **kw): made.append(self); init(self, *a, **kw)
    bare = image_lanes.module_of
    monkeypatch.setattr(image_lanes.Lane, '__init__', seen)
    for module in (image_lanes, gpu_lanes): monkeypatch.setattr(module, 'module_of', lambda spec, device='cpu': bare(spec))
    for name,f in dict(Stream=FakeStream, stream=on, CUDAGraph=Graph, graph=record, current_stream=FakeStream).items(): monkeypatch.setattr(torch.cuda, name, f)
    d = There(*(getattr(data, f) for f in ('x_train', 'y_train', 'x_test', 'y_test', 'mean', 'std')))
    return SimpleNamespace(data=d, played=played, made=made)

def lent(data, spec=SMALL, **kw): # `trained`, where networks stay on the CPU
    nets = make_networks(spec, [1, 2, 3], spec.default_radius())
    return nets, torch.stack([epoch_(nets, data, e, rates(spec, 1e-4, 2e-4, 5e-4), EpochConfig(spec.default_radius(), BATCH, engine='torch', **kw))[0] for e in (0, 1)])

@pytest.mark.parametrize('streams', [1, 2, 4])
def test_lanes_take_turns(data, pretended, streams):
    "three networks at three rates on some lanes: the plain bits, full batches recorded, the rest not, nothing recorded twice"
    (plain, a), (nets, b) = lent(data), lent(pretended.data, streams=streams)
    assert torch.equal(a, b) and all(torch.equal(v, nets.state[n]) for n,v in plain.state.items())
    mine = [l for l in pretended.made if l.cuda]
    assert len(mine) == min(streams, 3) and len({id(l.net) for l in mine}) == len(mine)
    assert len(pretended.played) == 2*3*(140//BATCH) and all(l.stream.waited for l in mine)

def test_what_cannot_be_recorded_trains_on(data, pretended, monkeypatch):
    @contextlib.contextmanager
    def fails(graph, stream): yield; raise RuntimeError('operation not permitted\nwhen stream is capturing')
    monkeypatch.setattr(torch.cuda, 'graph', fails)
    with pytest.warns(UserWarning, match='without a recorded step, slower: operation not permitted when') as w: nets, b = lent(pretended.data)
    assert len(w) == 1 and not pretended.played and torch.equal(b, lent(data)[1]) and not torch.backends.cudnn.benchmark

def test_recording_can_be_turned_off(data, pretended, monkeypatch):
    monkeypatch.setenv('ULRS_GRAPH', '0')
    assert torch.equal(lent(pretended.data)[1], lent(data)[1]) and not pretended.played

@pytest.mark.parametrize('fails', ['at once', 'in a step', ''])
def test_compiling_is_tried(data, pretended, monkeypatch, fails):
    "an unknown mode raises at once, a missing compiler in the first step"
    asked = []
    def compile(net, mode):
        asked.append(mode)
        if fails == 'at once': raise RuntimeError('no compiler')
        def run(x):
            if fails: raise RuntimeError('no compiler')
            return net(x)
        return run
    monkeypatch.setattr(torch, 'compile', compile); monkeypatch.setenv('ULRS_COMPILE', 'default')
    with pytest.warns(UserWarning, match='without torch.compile, slower: no compiler') if fails else contextlib.nullcontext(): nets, b = lent(pretended.data)
    assert asked == ['default'] and torch.equal(b, lent(data)[1])
    lane = image_lanes.LANES[0][1]
    assert lane.compiled is not bool(fails) and lane.trouble == ['without torch.compile: no compiler']*bool(fails)

def test_a_benchmark_row_is_what_it_says(data, pretended, monkeypatch):
    "a way that was not compiled or not recorded has no speed under that name"
    def no(net, mode): raise RuntimeError('no compiler')
    monkeypatch.setattr(torch, 'compile', no)
    for module in (bench_gpu, bench_timing): monkeypatch.setattr(module, 'noise', lambda *a: pretended.data)
    monkeypatch.setattr(bench_gpu, 'device_seconds', lambda f, device: f() or .5)
    monkeypatch.setattr(networks.Networks, 'to', lambda self, device: self)
    ways = bench_gpu.gpu_ways(GpuCase(SMALL, 140, BATCH, 2, 'fp32', 'cpu'), (), 0)
    monkeypatch.setattr(bench_gpu, 'numerics', lambda *a: contextlib.nullcontext())
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        with pytest.raises(RuntimeError, match='without torch.compile: no compiler'): ways['ours, compiled'][1]()
        assert ways['ours, one network'][1]() == .5

def test_whole_runs_of_tests_stay_on_the_cpu():
    "also where there is a GPU: they demand equal bits"
    from understanding_lrs.studies.array_trial import ImageTrial
    assert ImageTrial.device() == 'cpu'

def test_what_a_recording_depends_on(pretended, monkeypatch):
    "other labels, radius, batch or number format need another; a second lane keeps the first"
    monkeypatch.setattr(torch, 'compile', lambda net, mode: net)
    usual = LaneConfig(RHO, BATCH)
    kw = dict(spec=SMALL, data=pretended.data, config=usual)
    def lane(**other):
        with numerics('fp32', 'cuda'): return lanes(1, **kw | other)[0]
    one = lane()
    with numerics('fp32', 'cuda'): assert lanes(2, **kw)[0] is one
    assert lane() is one
    relabelled = replace(pretended.data, y_train=pretended.data.y_train.clone())
    for other in (dict(data=relabelled), *(dict(config=replace(usual, **c)) for c in (dict(batch=BATCH + 1), dict(rho=RHO + 1), dict(compile='default')))):
        assert lane(**other) is not one and lane() is not one # the first one was given up for it
        one = lane()
    with numerics('fp32', 'cuda'):
        torch.backends.cudnn.allow_tf32 = True # comes back
        assert lanes(1, **kw)[0] is not one

@pytest.mark.parametrize('n, n_test', [(40, 24), (24, 40)])
def test_a_timed_path_evaluates_what_its_floor_counts(monkeypatch, n, n_test):
    "3 points after 2 that are not counted, whichever set is the larger"
    seen, evaluate = [], probe_context.evaluate_nets
    def counted(nets, x, y, *a, **kw): seen.append(len(nets)*len(y)); return evaluate(nets, x, y, *a, **kw)
    monkeypatch.setattr(probe_context, 'evaluate_nets', counted)
    spec = replace(SMALL, width=2) # far from its floor, also where other work slows the matrix product
    got = bench_gpu.walk(GpuCase(spec, n, BATCH, device='cpu', size=256, n_test=n_test), 3, ('fp32',))
    row, = got['rows']
    assert sum(seen) == (2 + 3)*64 and got['tflop'] == pytest.approx(3*64*2*spec.macs/1e12, rel=1e-3)
    assert 0 < row['floor_s'] <= row['seconds'] and row['times_floor'] == pytest.approx(row['seconds']/row['floor_s'], rel=1e-2)

def test_a_path_that_fails_loses_no_row(monkeypatch):
    def no_room(*a, **kw): raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2.00 GiB.")
    monkeypatch.setattr(probe_context.ArrayEvaluator, 'along', no_room)
    monkeypatch.setattr(bench_gpu, 'gpu_ways', lambda *a: dict(one=(1, lambda: .5)))
    said = []
    got = bench_gpu.gpu(GpuCase(SPECS[1], 64, BATCH, 2, device='cpu', size=64), ('fp32', 'bf16'), points=3, on_row=said.append)
    assert said == [*got['rows'], *got['path']['rows']], 'a row is said as soon as it is there'
    assert [r['s_per_model_epoch'] for r in got['rows']] == [.5, .5] and (got['path']['points'], got['path']['pictures']) == (3, 76)
    assert [(r['precision'], r['seconds']) for r in got['path']['rows']] == [('fp32', None), ('bf16', None)]
    assert all(r['skipped'] == 'OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.' for r in got['path']['rows'])

# with a GPU

@needs_gpu
@by_arch
def test_the_recorded_step_is_the_eager_one(spec, there, monkeypatch, deterministic):
    "over two epochs, the last batch of each smaller"
    recorded, a = trained(spec, there)
    assert image_lanes.LANES[0][1].graph is not None
    monkeypatch.setenv('ULRS_GRAPH', '0')
    eager, b = trained(spec, there)
    assert image_lanes.LANES[0][1].graph is None
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5); near(recorded.flat(), eager.flat(), 1e-3)
    if spec.arch == 'resnet18': assert torch.equal(recorded.flat(), eager.flat()) # its pooling is deterministic too
    assert all(torch.isfinite(v).all() for v in recorded.state.values())

@needs_gpu
def test_the_gpu_does_what_the_cpu_does(data, there):
    near(trained(SMALL, there)[0].flat().cpu(), trained(SMALL, data)[0].flat(), 1e-3)

@needs_gpu
def test_another_rate_needs_no_recording(data, there):
    trained(SMALL, there, 1e-4); lane = image_lanes.LANES[0][1]
    nets, _ = trained(SMALL, there, 5e-4)
    assert image_lanes.LANES[0][1] is lane
    near(nets.flat().cpu(), trained(SMALL, data, 5e-4)[0].flat(), 1e-2)
    trained(SMALL, there, precision='bf16')
    assert image_lanes.LANES[0][1] is not lane, 'another number format does'

@needs_gpu
def test_other_pictures_need_one(data, there):
    "a recording reads the tensors that it was made with"
    trained(SMALL, there)
    swapped = replace(there, y_train=there.y_train.flip(0).contiguous())
    near(trained(SMALL, swapped)[0].flat().cpu(), trained(SMALL, replace(data, y_train=data.y_train.flip(0)))[0].flat(), 1e-3)

@needs_gpu
def test_streams_give_the_same(there, deterministic):
    one, a = trained(SMALL, there, seeds=(1, 2, 3))
    three, b = trained(SMALL, there, seeds=(1, 2, 3), streams=2) # 2 lanes, then 1
    assert len(image_lanes.LANES) == 2
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5); near(three.flat(), one.flat(), 1e-3)

@needs_gpu
def test_a_compiled_network_is_the_network(there):
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', message='training goes on without')
        near(trained(SMALL, there, compile='default')[0].flat(), trained(SMALL, there)[0].flat(), 1e-3)

@needs_gpu
def test_an_unknown_mode_warns_and_trains(there):
    with pytest.warns(UserWarning, match='without torch.compile'): _, loss = trained(SMALL, there, compile='no such mode')
    assert loss.isfinite().all()

@needs_gpu
def test_a_stage_resumes(there, deterministic):
    lr = rates(SMALL, 1e-4, 1e-3)
    def stage(): return Trainer(ArrayTask(there, RHO, BATCH), make_networks(SMALL, [1, 2], RHO).to('cuda'), lr, Schedule(3, swa_k=(2, 4), level=.5))
    whole, part = stage().run().state(), stage().run(until=1).state()
    again = stage().load(part).run().state()
    for k,v in whole.items(): torch.testing.assert_close(again[k], v, rtol=1e-3, atol=1e-3, equal_nan=True)

@needs_gpu
def test_nothing_waits_in_the_loop(there):
    "an epoch is queued without a synchronisation but the last one"
    nets, lr = make_networks(SMALL, [1], RHO).to('cuda'), rates(SMALL, 1e-4).cuda()
    orders = torch.arange(len(there.x_train), device='cuda')[None]
    image_lanes.epoch_torch_(nets, there, orders, lr, LaneConfig(RHO, BATCH))
    lane = image_lanes.LANES[0][1]
    torch.cuda.synchronize(); torch.cuda.set_sync_debug_mode('error')
    try:
        with lane.on():
            for b in orders[0].split(BATCH): lane.step(b)
    finally: torch.cuda.set_sync_debug_mode('default')
