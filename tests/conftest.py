"""What every test file may rely on: one thread (as the small-net runs have), the CPU, the project's root, and waits that know how busy the machine is.

Tests demand equal bits of whole runs, which cuDNN does not promise, so no test sees a GPU unless `ULRS_TEST_GPU=1` asks for
those that are about one; whole runs are lived on the CPU even then.
"""
import os, time
from pathlib import Path
os.environ.setdefault('OMP_NUM_THREADS', '1') # before torch is imported; child processes inherit it
GPU = bool(os.environ.get('ULRS_TEST_GPU'))
if not GPU: os.environ['CUDA_VISIBLE_DEVICES'] = '' # kernels and sweeps that tests start inherit it
import pytest

TINY = Path(__file__).resolve().parent.parent/'nbs/experiments/tiny_plr.ipynb' # the stand-in for an experiment

# files that take longest, by themselves or because they wait: they start first, so that none is left alone at the end
LONG = ('test_browser', 'test_lab', 'test_gpu_session', 'test_same_bits', 'test_executors', 'test_sweep', 'test_picture_readings',
        'test_pictures', 'test_picture_figures', 'test_interventions', 'test_vit', 'test_images')

def pytest_configure(config): config.option.loadscopereorder = False # xdist would begin with the files of most tests

def pytest_collection_modifyitems(items):
    rank = {name: i for i, name in enumerate(LONG)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(LONG)))

@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config): # for `-n auto`
    "One more than there are cores, because many tests wait for other processes"
    return 1 + (len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count())

@pytest.fixture(scope='session')
def root(): return Path(__file__).resolve().parent.parent

@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    if not GPU: return
    from understanding_lrs.studies.array_trial import ImageTrial
    monkeypatch.setattr(ImageTrial, 'device', staticmethod(lambda: 'cpu'))

def patience(seconds, most=20.):
    "A time limit for what takes `seconds` at most on an idle machine: longer by the number of processes that wait for each core"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    load = os.getloadavg()[0] if hasattr(os, 'getloadavg') else 0.
    return seconds*min(most, 1. + load/cores)

def is_kernel(process):
    "Whether a process is a kernel, forked or started as always"
    return 'ipykernel_launc' in ' '.join([process.name(), *process.cmdline()]) # the system keeps 15 letters of a name

def until(ready, seconds=40., why=lambda: ''):
    "Wait until `ready()` is true and return what it said; the load is asked again and again, since it grows while we wait"
    start = time.monotonic()
    while not (found := ready()):
        if time.monotonic() - start > patience(seconds): raise AssertionError(f'waited longer than {patience(seconds):.0f} s: {why()}')
        time.sleep(.02)
    return found
