"""A network that stays in a lane is the network alone: stages, slices, evaluations and statistics; and nothing is read on the way."""
import contextlib
from dataclasses import replace
from types import SimpleNamespace
import pytest, torch
from understanding_lrs.training.image_epochs import EvalConfig
from understanding_lrs.training import gpu_lanes, image_data, image_epochs, image_lanes
from understanding_lrs.data.loading import load_images
from understanding_lrs.data.channels import channel_stats
from understanding_lrs.networks.resnet import ResNet18Spec
from understanding_lrs.training.gpu_lanes import Way, evaluate_lanes
from understanding_lrs.training.image_evaluation import Evaluation, Recorded, evaluate_torch_nets
from understanding_lrs.training.array_task import ArrayTask
from understanding_lrs.training.lane_trainer import LaneTrainer
from understanding_lrs.training.image_data import resident
from understanding_lrs.training.image_lanes import load_network
from understanding_lrs.training.image_reference import reestimate_
from understanding_lrs.training.networks import make_networks
from understanding_lrs.training.trainer import Schedule, Trainer, joined_states, joined_trainer, part_of_state
from understanding_lrs.core.sphere import elr_to_lr

BATCH, SPEC = 32, ResNet18Spec(4, 10, 8)
RHO = SPEC.default_radius()
SOME = dict(swa_k=(2, 3), level=2.2)

def digits(device='cpu'): # 108 pictures: three batches and a rest of 12
    d = load_images('digits')
    d = replace(d, x_train=d.x_train[:108], y_train=d.y_train[:108], x_test=d.x_test[:50], y_test=d.y_test[:50])
    return resident(d, *channel_stats(d.x_train), device)

@pytest.fixture(scope='module')
def data(): return digits()

@pytest.fixture(autouse=True)
def fresh_lanes():
    gpu_lanes.RESIDENT.clear()
    yield
    gpu_lanes.RESIDENT.clear()

def rates(k=3): return torch.tensor([elr_to_lr(e, RHO) for e in (1e-4, 1e-3, 1e-1)[:k]])
def same(a, b): assert sorted(a) == sorted(b) and all(torch.equal(a[n].nan_to_num(-1), b[n].nan_to_num(-1)) for n in a)
def stage(kind, data, k=3, engine='auto', way=None, **kw):
    nets, task = make_networks(SPEC, [1, 2, 3][:k], RHO), ArrayTask(data, RHO, BATCH, engine=engine)
    return kind(task, nets, rates(k), Schedule(3, **SOME | kw), **dict(way=way) if way else {})

def test_slices_of_a_stage_are_single_runs(data):
    "bit for bit, crossing of the level, averages and curves included"
    whole = stage(LaneTrainer, data).run().state()
    for k in range(3):
        one = Trainer(ArrayTask(data, RHO, BATCH, engine='torch'), make_networks(SPEC, [k + 1], RHO), rates()[k], Schedule(3, **SOME)).run().state()
        same(one, part_of_state(whole, slice(k, k + 1)))
    assert (whole['crossed'] > 0).any() and (whole['crossed'] < 0).any(), 'the level tells networks apart'
    same(whole, joined_states([part_of_state(whole, slice(0, 1)), part_of_state(whole, slice(1, 3))]))

def test_a_slice_that_differs_is_seen(data):
    a = stage(LaneTrainer, data).run().state()
    with pytest.raises(AssertionError): same(part_of_state(a, slice(0, 1)), part_of_state(a, slice(1, 2)))

def test_stages_are_joined(data):
    several = [Trainer(ArrayTask(data, RHO, BATCH), make_networks(SPEC, [k + 1], RHO), rates()[k], Schedule(3, **SOME)) for k in range(3)]
    same(joined_trainer(several, LaneTrainer).run().state(), stage(LaneTrainer, data).run().state())
    with pytest.raises(ValueError, match='differs in networks and rates only'): joined_trainer([several[0], stage(Trainer, data, level=1.)])

@pytest.mark.parametrize('at', [1, 2])
def test_a_stage_resumes_in_lanes_and_out_of_them(data, at):
    whole, part = stage(LaneTrainer, data).run().state(), stage(LaneTrainer, data).run(until=at).state()
    same(whole, stage(LaneTrainer, data).load(part).run().state())
    same(whole, stage(Trainer, data, engine='torch').load(part).run().state())

def test_a_lost_network_stays_alone(data):
    lr = torch.tensor([elr_to_lr(1e-4, RHO), float('inf')])
    a = LaneTrainer(ArrayTask(data, RHO, BATCH), make_networks(SPEC, [1, 2], RHO), lr, Schedule(2)).run()
    b = Trainer(ArrayTask(data, RHO, BATCH, engine='torch'), make_networks(SPEC, [1, 2], RHO), lr, Schedule(2)).run()
    same(a.state(), b.state())
    assert a.curves[-1, 3].isfinite().tolist() == [True, False]

@pytest.mark.parametrize('own', [True, False])
def test_an_evaluation_is_the_plain_one(data, own):
    a, b = (make_networks(SPEC, [1, 2, 3], RHO) for _ in range(2))
    how = dict(x=data.x_train, y=data.y_train, data=data, batch=BATCH, own=own)
    for one,two in zip(evaluate_lanes(a, **how), evaluate_torch_nets(b, **how)): assert torch.equal(one, two)
    for n in a.state: torch.testing.assert_close(a.state[n], b.state[n], rtol=1e-5, atol=1e-6)

def test_statistics_are_those_of_the_reference(data):
    nets = make_networks(SPEC, [1], RHO)
    lane, = gpu_lanes.resident_lanes(1, SPEC, data)
    lane.load(nets, 0)
    lane.evaluation(data.x_train, BATCH, own=True)(data.x_train, data.y_train)
    plain = reestimate_(load_network(nets, 0), data.inputs(data.x_train), BATCH).state_dict()
    for n in (n for n in lane.tensors if 'running' in n): torch.testing.assert_close(lane.tensors[n], plain[n], rtol=1e-5, atol=1e-6)
    assert not torch.equal(lane.tensors['bn.running_mean'], nets.state['bn.running_mean'][0])

# nothing is read on the way

@pytest.fixture
def meta(data):
    "pictures without numbers: whoever reads one gets an exception"
    to = lambda t: t.to('meta')
    return replace(data, **{n: to(getattr(data, n)) for n in ('x_train', 'y_train', 'x_test', 'y_test')})

def test_a_stage_is_launched_without_reading_a_number(meta):
    nets = make_networks(SPEC, [1, 2], RHO).to('meta')
    whole = LaneTrainer.__new__(LaneTrainer)
    whole.__init__(ArrayTask(meta, RHO, BATCH), nets, rates(2), Schedule(3, **SOME))
    seen = []
    whole.enter().queue(on_window=lambda s: seen.append(s.step))
    assert seen == [1, 2, 3] and whole.seen.device.type == 'meta'
    with pytest.raises(NotImplementedError): whole.collect()

def test_reading_a_number_would_be_seen(meta):
    for read in (torch.Tensor.item, torch.Tensor.cpu, torch.Tensor.tolist, bool):
        with pytest.raises((RuntimeError, NotImplementedError)): read(meta.y_train[:1].sum())

# recordings, with a CUDA whose graphs call the work again

class FakeStream:
    def wait_stream(self, other): pass

@pytest.fixture
def pretended(data, monkeypatch):
    class There(image_data.Resident): device = 'cuda'
    played = []
    class Graph:
        def replay(self): played.append(self.work); self.work()
    record = Recorded.record
    def seen(self):
        record(self)
        self.graph.work = self.work
    @contextlib.contextmanager
    def anywhere(*a, **kw): yield
    bare = image_lanes.module_of
    monkeypatch.setattr(Recorded, 'record', seen)
    for module in (image_lanes, gpu_lanes): monkeypatch.setattr(module, 'module_of', lambda spec, device='cpu': bare(spec))
    for name,f in dict(Stream=FakeStream, stream=anywhere, CUDAGraph=Graph, graph=anywhere, current_stream=FakeStream).items(): monkeypatch.setattr(torch.cuda, name, f)
    there = There(*(getattr(data, f) for f in ('x_train', 'y_train', 'x_test', 'y_test', 'mean', 'std')))
    return SimpleNamespace(data=there, played=played)

def test_everything_in_a_stage_is_recorded(data, pretended):
    "steps, the last smaller batch, evaluations; the plain bits, and nothing recorded twice"
    same(stage(Trainer, data, engine='torch').run().state(), stage(LaneTrainer, pretended.data).run().state())
    looks = 4 # 0 to 3, one batch each
    assert len(pretended.played) == 3*(3*(3 + 1) + looks)
    lanes = [lane for _,lane in gpu_lanes.RESIDENT]
    assert len(lanes) == 3 and {lane.how for lane in lanes} == {'graph'} and not any(lane.trouble for lane in lanes)
    graphs = [lane.full.graph for lane in lanes]
    stage(LaneTrainer, pretended.data, k=2).run()
    assert [lane.full.graph for _,lane in gpu_lanes.RESIDENT] == graphs

def test_paths_are_evaluated_from_recordings(data, pretended):
    a, b = (make_networks(SPEC, [1, 2], RHO) for _ in range(2))
    got = image_epochs.evaluate_nets(a, data.x_train, data.y_train, pretended.data, EvalConfig(BATCH, own=True))
    for one,two in zip(got, evaluate_torch_nets(b, data.x_train, data.y_train, data, BATCH, True)): assert torch.equal(one, two)
    assert len(pretended.played) == 2*4

def test_a_recording_that_fails_is_noted_and_the_plain_step_goes_on(data, pretended, monkeypatch):
    @contextlib.contextmanager
    def fails(*a, **kw): yield; raise RuntimeError('operation not permitted\nwhen stream is capturing')
    monkeypatch.setattr(torch.cuda, 'graph', fails)
    same(stage(Trainer, data, engine='torch').run().state(), stage(LaneTrainer, pretended.data).run().state())
    lane = gpu_lanes.RESIDENT[0][1]
    assert lane.how == 'eager' and lane.trouble[0] == 'CUDA graph: operation not permitted when stream is capturing' and not pretended.played
    assert not torch.backends.cudnn.benchmark

def test_one_compilation_serves_all_lanes(data, pretended, monkeypatch):
    made = []
    def backend(graph, inputs): made.append(1); return graph.forward
    gpu_lanes.compiled_forward.cache_clear()
    compile = torch.compile
    monkeypatch.setattr(torch, 'compile', lambda f: compile(f, backend=backend))
    try: got = stage(LaneTrainer, pretended.data, way=Way(compiled=True)).run()
    finally: gpu_lanes.compiled_forward.cache_clear()
    assert len(made) == 1 and {lane.how for _,lane in gpu_lanes.RESIDENT} == {'compiled graph'}
    plain = stage(Trainer, data, engine='torch').run()
    torch.testing.assert_close(got.curves[:, 0, :1], plain.curves[:, 0, :1], rtol=1e-3, atol=1e-3, equal_nan=True)

@pytest.mark.parametrize('at', ['once', 'in a step'])
def test_a_compilation_that_fails_is_noted(data, pretended, monkeypatch, at):
    "an unknown mode raises at once, a missing compiler at the first step"
    def no(*a): raise RuntimeError('no compiler')
    monkeypatch.setattr(gpu_lanes, 'compiled_forward', no if at == 'once' else lambda: no)
    same(stage(Trainer, data, engine='torch').run().state(), stage(LaneTrainer, pretended.data, way=Way(compiled=True)).run().state())
    lane = gpu_lanes.RESIDENT[0][1]
    assert lane.how == 'graph' and lane.trouble == ['torch.compile: no compiler']

def test_short_memory_leaves_no_lane_behind(data, pretended, monkeypatch):
    def no_room(self, k, lane): raise torch.OutOfMemoryError('CUDA out of memory')
    monkeypatch.setattr(LaneTrainer, '_note', no_room)
    one = stage(LaneTrainer, pretended.data)
    with pytest.raises(torch.OutOfMemoryError): one.run()
    assert one.lanes == []
    monkeypatch.setattr(Evaluation, '_add', lambda *a: no_room(*a))
    nets = make_networks(SPEC, [1], RHO)
    assert torch.equal(evaluate_lanes(nets, data.x_test, data.y_test, pretended.data, BATCH, False)[0], evaluate_torch_nets(nets, data.x_test, data.y_test, data, BATCH, False)[0])
    assert not gpu_lanes.RESIDENT

# with a GPU

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU, or not asked for by ULRS_TEST_GPU=1')

@needs_gpu
@pytest.mark.parametrize('compiled', [False, True])
def test_lanes_of_a_gpu_do_what_the_cpu_does(data, compiled):
    "recorded, perhaps compiled; a convergent network, as chaotic ones part from rounding alone"
    nets, lr = make_networks(SPEC, [1, 2], RHO), torch.full((2,), elr_to_lr(5e-5, RHO))
    there = LaneTrainer(ArrayTask(digits('cuda'), RHO, BATCH), nets.to('cuda'), lr, Schedule(3, **SOME), way=Way(compiled=compiled)).run()
    here = Trainer(ArrayTask(data, RHO, BATCH, engine='torch'), nets, lr, Schedule(3, **SOME)).run()
    assert {lane.how for _,lane in gpu_lanes.RESIDENT} == {'compiled graph' if compiled else 'graph'}
    torch.testing.assert_close(there.curves[:, [0, 2]], here.curves[:, [0, 2]], rtol=1e-2, atol=1e-2, equal_nan=True)
    for k in (2, 3): assert (there.averages[k].cpu() - here.averages[k]).norm() <= 1e-2*here.averages[k].norm()

@needs_gpu
def test_a_gpu_never_waits_in_a_stage():
    "looks, averages and the level included"
    one = LaneTrainer(ArrayTask(digits('cuda'), RHO, BATCH), make_networks(SPEC, [1, 2], RHO).to('cuda'), rates(2), Schedule(3, **SOME))
    with image_data.numerics('fp32', 'cuda'):
        one.enter()
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode('error')
        try: one.queue()
        finally: torch.cuda.set_sync_debug_mode('default')
    assert one.collect().curves[1:, 0].isfinite().all()

@needs_gpu
@pytest.mark.parametrize('own', [True, False])
def test_evaluations_of_a_gpu_are_the_plain_ones(own):
    there, a, b = digits('cuda'), *(make_networks(SPEC, [1, 2, 3], RHO).to('cuda') for _ in range(2))
    how = dict(x=there.x_train, y=there.y_train, data=there, batch=BATCH, own=own)
    for one,two in zip(evaluate_lanes(a, **how), evaluate_torch_nets(b, **how)): torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-3)
    for n in a.state: torch.testing.assert_close(a.state[n], b.state[n], rtol=1e-3, atol=1e-4)
