"""A GPU for fifteen minutes: a planned session, and what goes before and after it.

    python tools/gpu.py --plan                      # what is done, minute by minute; needs no GPU
    python tools/gpu.py --rehearse                  # the same on digits, on the CPU, in a minute
    python tools/gpu.py --split data/cifar10        # cut images into parts that can travel, into gpu_session/parts
    python tools/gpu.py --ahead                     # there, while parts still travel: compile and measure, in the background
    python tools/gpu.py --seconds 580 --out home    # the session; at most eight small files in `home`, readable at any moment
    python tools/gpu.py --home home                 # here: unpack the runs, add their tables to figures/data

Any Python will do that has torch, numpy, pandas, pyarrow and safetensors. Runs are made without their notebooks; a later
`ulrs sweep` on the same folder of runs writes the notebooks without training.
"""
import argparse, importlib.util, os, signal, subprocess, sys, threading
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NEEDED = 'torch', 'numpy', 'pandas', 'pyarrow', 'safetensors'
os.environ.setdefault('OMP_NUM_THREADS', '1') # processes side by side would fight for cores
sys.path.insert(0, str(ROOT))

def arguments():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    act = ap.add_mutually_exclusive_group()
    act.add_argument('--plan', action='store_true', help='print the plan')
    act.add_argument('--rehearse', action='store_true', help='a small session on the CPU')
    act.add_argument('--split', metavar='FOLDER', help='cut a folder of images into parts')
    act.add_argument('--ahead', action='store_true', help='compile and measure in the background')
    act.add_argument('--measure', action='store_true', help='the same in the foreground')
    act.add_argument('--home', metavar='FOLDER', help='take in what a session brought')
    time = ap.add_mutually_exclusive_group()
    time.add_argument('--seconds', type=float, default=580., help='that the session may take')
    time.add_argument('--minutes', type=float, help='the same in minutes')
    ap.add_argument('--per-epoch', type=float, default=.5, help='seconds a model-epoch that --plan assumes')
    ap.add_argument('--data', default='', help='cifar10, or a folder of images; default: parts of cifar10, else by torchvision')
    ap.add_argument('--out', default='gpu_session/home', help='folder that is carried home')
    ap.add_argument('--work', default='gpu_session', help='folder of parts, drafts and compiled code')
    ap.add_argument('--runs', default='runs', help='folder of the runs')
    ap.add_argument('--tables', default='figures/data', help='published tables; what they have is not run again')
    return ap

def known_images(source):
    "The source, if there is one; refused before the GPU is used"
    from understanding_lrs.core.errors import InputError
    from understanding_lrs.data.loading import find_source
    try: '@' in source or find_source(source, Path())
    except (ValueError, FileNotFoundError) as e: raise InputError(str(e)) from None
    return source

def session_parts(a, seconds):
    "Configuration, folders (below the project unless they are absolute) and clock of a session"
    from understanding_lrs.app import gpu_plan, gpu_session
    parts = ROOT/a.work/'parts'
    folders = gpu_session.Folders(ROOT/a.out, ROOT/a.runs, ROOT/a.work, ROOT/a.tables)
    if a.data: folders.data = (known_images(a.data),)
    elif parts.exists(): folders.parts = parts
    return gpu_plan.SessionConfig(), folders, gpu_plan.Clock(seconds)

def split(folder, work):
    "Cut a folder of images into parts that travel beside this checkout, and name them"
    from understanding_lrs.app import gpu_transport
    size = gpu_transport.part_size(ROOT) if (ROOT/'.git').exists() else gpu_transport.PART_BYTES
    for part in gpu_transport.split_folder(folder, ROOT/work/'parts', size): print(part)

def take_home(a):
    "Unpack what a session brought, and say which tables it joined"
    from understanding_lrs.app.gpu_transport import bring_home
    for name,said in bring_home(ROOT/a.home, ROOT/a.runs, ROOT/a.tables).items(): print(f'{name}: {said}')

def in_time(seconds):
    "A process that hangs ends by itself; one that is asked to end goes home first"
    last = threading.Timer(seconds, os._exit, [3])
    last.daemon = True
    last.start()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

def go_ahead(words):
    "Measure in a process that outlives this one"
    (ROOT/words.work).mkdir(parents=True, exist_ok=True)
    with open(ROOT/words.work/'ahead.log', 'ab') as log:
        command = [sys.executable, __file__, '--measure', '--work', words.work, '--tables', words.tables, '--seconds', str(words.seconds)]
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
    (ROOT/words.work/'ahead.pid').write_text(str(process.pid))
    print(f'measuring in the background, process {process.pid}; its lines: {words.work}/ahead.log')

def stop_ahead(a):
    "What still measures in the background makes room"
    try: os.killpg(int((ROOT/a.work/'ahead.pid').read_text()), signal.SIGKILL)
    except (OSError, ValueError): pass
    (ROOT/a.work/'ahead.pid').unlink(missing_ok=True)

def on_gpu(a, seconds):
    "Measure ahead, in the background or here, or run the session"
    import torch
    from understanding_lrs.app import gpu_session
    if not torch.cuda.is_available(): sys.exit('PyTorch finds no GPU here; --plan and --rehearse need none, and without one there is: make images')
    if a.ahead: return go_ahead(a)
    in_time(seconds + 20)
    if a.measure: return gpu_session.measure_ahead(*session_parts(a, seconds))
    stop_ahead(a)
    gpu_session.run_session(gpu_session.GpuSession(*session_parts(a, seconds)))

def main(words=None):
    ap = arguments()
    a = ap.parse_args(words)
    seconds = 60*a.minutes if a.minutes is not None else a.seconds
    if not seconds > 0 or not a.per_epoch > 0: ap.error('--seconds, --minutes and --per-epoch must be above 0')
    if missing := [m for m in NEEDED if importlib.util.find_spec(m) is None]:
        sys.exit(f"{', '.join(missing)} is not installed; make setup, or name a Python that has {', '.join(NEEDED)}")
    from understanding_lrs.app import gpu_plan, gpu_session
    from understanding_lrs.core.errors import InputError
    try:
        if a.plan: print(gpu_plan.plan_text(gpu_plan.plan_rows(seconds, a.per_epoch)))
        elif a.split: split(a.split, a.work)
        elif a.home: take_home(a)
        elif a.rehearse: gpu_session.rehearse(ROOT/a.work/'rehearsal', gpu_plan.Clock(min(seconds, 60)))
        else: on_gpu(a, seconds)
    except InputError as e: sys.exit(str(e))

if __name__ == '__main__': main()
