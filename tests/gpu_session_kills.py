"""Kill GPU sessions at random moments: `python tests/gpu_session_kills.py 20`. Imports once, then one fork per session; prints JSON at the end."""
import io, json, os, random, shutil, signal, sys, tarfile, tempfile, time
from pathlib import Path
os.environ.setdefault('OMP_NUM_THREADS', '1')
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import torch
from understanding_lrs.app import gpu_measure, gpu_session
from understanding_lrs.app.gpu_plan import SimulatedClock
from understanding_lrs.app.gpu_transport import FILES, LOG, read_log
from understanding_lrs.studies import trial
from understanding_lrs.probes.filters import probe_filters
from understanding_lrs.runs.archives import unpack
from understanding_lrs.runs.find import find_runs

torch.set_num_threads(1)
COSTS = dict(epoch=.5, probes=1., measure=5.)
TINY = gpu_session.REHEARSAL | dict(epochs=1, n_train=70, swa_k=[])

class NoProcess: # the images are in the cache: nothing runs beside
    def __init__(self, *a, **kw): pass
    def wait(self, seconds): return ''

def run(folder):
    "One session of two waves, in this process, silent"
    gpu_session.SideProcess = NoProcess
    gpu_session.choose = lambda *a: gpu_measure.Choice('fp32', 4, False, True, {'1': .5})
    gpu_session.check_lanes = lambda *a: dict(good=True)
    trial.probes_for = lambda offers: dict(filters=probe_filters)
    sys.stdout = io.StringIO()
    gpu_session.rehearse(folder, SimulatedClock(36, COSTS), settings=TINY, seeds=(1,))

def killed(after): # seconds -> what is left behind
    "One session, killed after a time; raises where a file cannot be read"
    folder = Path(tempfile.mkdtemp(prefix='ulrs-kill-'))
    if not (child := os.fork()):
        try: run(folder)
        finally: os._exit(0)
    time.sleep(after)
    ended = os.waitpid(child, os.WNOHANG)[0] == child
    if not ended: os.kill(child, signal.SIGKILL); os.waitpid(child, 0)
    try: return readable(folder) | dict(seconds=round(after, 2), killed=not ended)
    finally: shutil.rmtree(folder)

def readable(folder):
    "Files of a home are few, small and whole"
    home = folder/'home'
    files = [f for f in home.iterdir() if f.is_file()] if home.exists() else []
    assert len(files) <= FILES and all(f.stat().st_size < 16*2**20 for f in files) and (not home.exists() or len(files) == len(list(home.iterdir())))
    events = read_log(home) if (home/LOG).exists() else []
    for f in files: assert f.name == LOG or tarfile.is_tarfile(f), f.name
    runs = [r for f in files if f.suffix == '.gz' for r in unpack(f, folder/'there')]
    assert all(r.state(deep=True).kind == 'done' for r in find_runs(folder/'there'))
    return dict(files=len(files), lines=len(events), runs=len(runs))

if __name__ == '__main__':
    count, rng = int(sys.argv[1]), random.Random(15)
    from understanding_lrs.data.loading import load_images
    load_images('digits')
    whole = killed(1e-3) # a kill at once is survived
    folder = Path(tempfile.mkdtemp(prefix='ulrs-kill-'))
    start = time.monotonic()
    child = os.fork()
    if not child:
        try: run(folder)
        finally: os._exit(0)
    os.waitpid(child, 0)
    took = time.monotonic() - start # of a whole session here and now
    shutil.rmtree(folder)
    found = [whole]
    def short(): return len(found) < count or sum(f['killed'] for f in found) < count//2 # on an idle machine some sessions end before the kill
    while short() and len(found) < 3*count: found.append(killed(rng.random()*took))
    print(json.dumps(found))
