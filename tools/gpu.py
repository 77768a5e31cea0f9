"""Everything that needs a GPU, in one call: checks, benchmarks, then runs of a study until the time is over, and their tables.

    make gpu                                          # in .venv, an hour, CIFAR-10 by torchvision
    python tools/gpu.py --minutes 25 --data pictures  # any Python that has torch and torchvision, pandas, pyarrow and safetensors

Ask again and it goes on: what is measured or finished is not done twice. Runs are lived without their notebooks, so neither papermill nor
JupyterLab is needed; a later `ulrs sweep` on the same folder writes the notebooks of finished runs without training.
"""
import argparse, importlib.util, json, multiprocessing, os, subprocess, sys, time
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
os.environ.setdefault('OMP_NUM_THREADS', '1') # runs side by side would fight for cores
sys.path.insert(0, str(ROOT))
TESTS = [f'tests/test_{n}.py' for n in ('gpu', 'pictures', 'practical', 'vit')]

def say(*words): print(*words, flush=True)

def checks():
    "The tests that a GPU makes complete"
    if importlib.util.find_spec('pytest') is None: return say('checks: left out, there is no pytest here')
    if subprocess.run([sys.executable, '-m', 'pytest', '-q', *TESTS], cwd=ROOT).returncode: sys.exit('checks: the tests above fail on this GPU; nothing else was begun')

def measure(name, out, call):
    "One benchmark into its file, unless it is there"
    from understanding_lrs.runs import atomic_write
    file = out/'bench'/f'{name}.json'
    if file.exists(): return say(f'{file}: is there')
    file.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(file, (json.dumps(call(), indent=1) + '\n').encode())
    say(f'{file}: written')

def one(protocol, root, seconds):
    "Live one run until it ends or the time is over: how it stands"
    from understanding_lrs.runs import OutOfTime, Run
    from understanding_lrs.studies import live
    run, last = Run(root, protocol), [0.]
    def told(stage, done, total, fraction):
        if time.monotonic() - last[0] > 30: last[0] = time.monotonic(); say(f'{protocol.name}: {stage} {done}/{total}, {100*fraction:.0f} %')
    if run.state().kind == 'done': return 'is there'
    try: live(protocol, run, told, time_limit=seconds)
    except OutOfTime: return 'stopped at a checkpoint, the same call goes on'
    return 'is done'

def asked(a):
    "The runs of the preset; looks at the data, so that what is wrong is said before any work"
    from understanding_lrs.studies import protocols, settled
    return settled(protocols(a.study, a.preset, overrides=dict(data=a.data) if a.data else None))

def runs(a, wanted, root, end):
    "Those that are not published yet, several at a time, in the order of the preset, the most telling rates first: how many failed"
    from understanding_lrs.runs import published_protocols
    there = {p.key for p in published_protocols(ROOT/a.out/a.study/a.preset)}
    if there: say(f'{len(there)} runs are published already')
    with ProcessPoolExecutor(a.together, multiprocessing.get_context('spawn'), max_tasks_per_child=1) as pool:
        todo, going, failed = [p for p in wanted if p.key not in there], {}, 0
        while todo or going:
            while todo and len(going) < a.together and (left := end - time.monotonic()) > 0:
                p = todo.pop(0)
                going[pool.submit(one, p, str(root), left)] = p
            if not going: break
            done = next(as_completed(going))
            p = going.pop(done)
            try: say(f'{p.name}: {done.result()}')
            except Exception as e:
                failed += 1
                say(f'{p.name}: {type(e).__name__}: {e}')
                if isinstance(e, BrokenProcessPool): todo, going = [], {} # what stops a process, such as a lack of memory, may stop the next one
    return failed

def tables(a, root, out, wanted):
    "What is finished, as committed tables"
    from understanding_lrs.runs import find_runs, publish
    keys = {p.key for p in wanted}
    found = [r for r in find_runs(root, a.study) if r.protocol and r.protocol.key in keys and r.state().kind == 'done']
    if not found: return say('tables: no further run is finished')
    for file,n in publish(found, out/a.study/a.preset, wanted, preset=a.preset, add=True).items(): say(f'{out/a.study/a.preset/file}: {n} rows')
    say(f'{len(found)} runs of {len(wanted)}; pictures: ulrs figures {a.study} --preset {a.preset} --published --out figures')

def main(words=None, needs_gpu=True):
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--study', default='resnet18si_cifar10')
    ap.add_argument('--preset', default='short')
    ap.add_argument('--data', default='', help="cifar10, or a folder of pictures; default: the study's own, by torchvision")
    ap.add_argument('--minutes', type=float, default=60., help='for the runs, after checks and benchmarks')
    ap.add_argument('--together', type=int, default=2, help='runs that share the GPU')
    ap.add_argument('--runs', default='runs', help='folder of the runs')
    ap.add_argument('--out', default='figures/data', help='folder of tables and benchmarks')
    ap.add_argument('--skip', nargs='*', default=[], choices=['checks', 'bench', 'runs'])
    a = ap.parse_args(words)
    if a.minutes <= 0 or a.together < 1: ap.error('--minutes must be above 0 and --together at least 1')
    try: import torch
    except ImportError: sys.exit('torch is not installed; make setup, or name a Python that has it')
    if needs_gpu and not torch.cuda.is_available(): sys.exit('PyTorch finds no GPU here; without one: make images')
    from understanding_lrs.runs import InputError
    root, out = ROOT/a.runs, ROOT/a.out
    try:
        wanted = [] if 'runs' in a.skip else asked(a)
        if 'checks' not in a.skip: checks()
        if 'bench' not in a.skip:
            from understanding_lrs import bench
            measure('gpu', out, lambda: bench.gpu(on_row=say))
            measure('precision', out, lambda: bench.precision_effect(a.data or 'cifar10'))
        if 'runs' in a.skip: return
        failed = runs(a, wanted, root, time.monotonic() + 60*a.minutes)
        tables(a, root, out, wanted)
    except InputError as e: sys.exit(str(e))
    if failed: sys.exit(f'{failed} runs failed, see above; the same call tries them again')

if __name__ == '__main__': main()
