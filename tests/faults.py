"""python tests/faults.py [--kills 500] [--seed 0] [--out FILE.csv]: kill commands at random, call them again, and compare the end.

Two fifths of the kills strike sweeps, the others what is done with finished runs (the class Shelf below).

Rounds of a sweep of the tiny study. In each call one fault strikes at a random moment:
  kernel   SIGKILL of one kernel                    parent   SIGKILL of the sweeping process
  all      SIGKILL of both, and of every kernel     worker   SIGKILL of a Dask worker (a scheduler and 3 workers on loopback)
  twins    two sweeps in one folder, one is killed  full     the disk is full (a small tmpfs where it can be mounted,
  denied   the folder cannot be written                      an injected ENOSPC elsewhere)
Then the sweep is called again, until its runs are finished. Asked at the end of each round: are `metrics` and `curves` the
bytes of an undisturbed sweep; is a process, a kernel or a file left over; was a run done twice or by two at once?

On the shelf each call of one of these is killed, at a random time or at a random one of its file operations, and called again:
  tables   a published set is replaced by another   add      runs are added to a published set
  pack     runs are packed over an older pack       unpack   runs arrive where some are already, finished or not
  figures  pictures are drawn over older ones
Asked after each: is the end that of an undisturbed call; is anything else in the folders, notes of the user among it, as it was;
is a temporary file or folder left?
"""
import argparse, collections, contextlib, csv, ctypes, dataclasses, datetime, json, os, platform, random, re, shutil, signal, socket
import subprocess, sys, tempfile, time, traceback
from pathlib import Path
import nbformat, psutil
from conftest import TINY, is_kernel, patience
import pandas as pd
from understanding_lrs.runs import tables as run_tables
from understanding_lrs.runs.archives import pack, unpack
from understanding_lrs.runs.find import find_runs
from understanding_lrs.runs.protocol import Protocol
from understanding_lrs.runs.published import publish, read_published
from understanding_lrs.runs.store import Run
from understanding_lrs.figures.registry import draw, load_figures
from understanding_lrs.figures.view import view_of
from understanding_lrs.sweep.sweep import sweep

HERE = Path(__file__).resolve().parent
WHOLE = {'.lock', 'DONE', 'curves.csv', 'metrics.csv', 'notebook.ipynb', 'protocol.json', 'provenance.json'}
KINDS = dict(kernel=5, parent=5, all=4, worker=2, twins=2, full=1, denied=1) # how often, relative

def protocols(n, steps=8, pause=.05):
    p = Protocol('tiny', .1, flrs=[.01], data_seeds=[1, 2], train_seeds=[1], settings=dict(steps=steps, pause=pause))
    return [dataclasses.replace(p, plr=round(.01*(i+1), 4)) for i in range(n)]

SWEEP = """
import sys, json
from understanding_lrs.runs.protocol import Protocol
from understanding_lrs.sweep.sweep import sweep
given = json.loads(sys.argv[1])
try: result = sweep([Protocol.from_dict(d) for d in given['protocols']], given['root'], given['template'], workers=2, progress='none',
                    executor=given['executor'])
except KeyboardInterrupt: sys.exit(130) # Ctrl-C before anything was begun
print(result)
sys.exit(result.exit_code)"""

INJECT = """
import errno, os
_fsync = os.fsync
def fsync(fd):
    if os.path.exists(os.environ['FAULTS_FULL']): raise OSError(errno.ENOSPC, 'No space left on device')
    return _fsync(fd)
os.fsync = fsync
"""

class Forked:
    "A sweep in a fork of this process, which has everything imported: a call costs no start-up; used like a Popen"
    def __init__(self, given, env, log):
        self.log, self.returncode = log, None
        self.pid = os.fork()
        if not self.pid: self.body(given, env)

    def body(self, given, env):
        code = 1
        try:
            out = os.open(self.log, os.O_CREAT | os.O_WRONLY)
            for fd in (1, 2): os.dup2(out, fd)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.environ.update(env)
            code = sweep([Protocol.from_dict(d) for d in given['protocols']], given['root'], given['template'], workers=2,
                         progress='none', executor=given['executor']).exit_code
        except KeyboardInterrupt: code = 130
        except BaseException: traceback.print_exc()
        finally: os._exit(code)

    def poll(self):
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid: self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout=None):
        end = time.time() + (timeout or 3600)
        while self.poll() is None:
            if time.time() > end: raise subprocess.TimeoutExpired('sweep', timeout)
            time.sleep(.02)
        return self.returncode

    def communicate(self, timeout=None):
        self.wait(timeout)
        return self.log.read_text() if self.log.exists() else '', None

    def send_signal(self, s): self.poll() is None and os.kill(self.pid, s)
    def kill(self): self.send_signal(signal.SIGKILL)

def journal_notebook(folder):
    "The tiny notebook with a journal outside the runs: which claim did which step when"
    nb = nbformat.read(TINY, 4)
    old = "            run.save_checkpoint(state, dict(step=i + 1))\n"
    new = old + "            open(os.environ['FAULTS_JOURNAL'], 'a').write(f'{run.folder} {run.token} {i} {time.time()}\\n')\n"
    for c in nb.cells: c.source = c.source.replace(old, new).replace('import tempfile, time\n', 'import os, tempfile, time\n')
    assert sum('FAULTS_JOURNAL' in c.source for c in nb.cells) == 1
    nbformat.write(nb, folder/'tiny.ipynb')
    return folder/'tiny.ipynb'

def weak():
    "As root: without the right to write everywhere, so that permissions hold for this process too"
    libc = ctypes.CDLL(None)
    for capability in (1, 2): libc.prctl(24, capability, 0, 0, 0) # drop CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH

def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]

class Campaign:
    "One folder for all that the faults leave, and the counts"
    def __init__(self, seed, runs, kinds, say=print):
        self.rng, self.say, self.kinds = random.Random(seed), say, kinds
        self.home = Path(tempfile.mkdtemp(prefix='faults-'))
        self.template, self.wanted = journal_notebook(self.home), protocols(runs)
        self.id, self.counts, self.wrong = f'faults-{os.getpid()}-{seed}', collections.Counter(), []
        (self.home/'inject').mkdir()
        (self.home/'inject/sitecustomize.py').write_text(INJECT)
        self.full = self.home/'full'
        self.env = os.environ | dict(FAULTS_ID=self.id, FAULTS_JOURNAL=str(self.home/'journal'), FAULTS_FULL=str(self.full),
                                     OMP_NUM_THREADS='1', JUPYTER_RUNTIME_DIR=str(self.home/'runtime'))
        self.inject = self.env | dict(PYTHONPATH=os.pathsep.join([str(self.home/'inject'), *filter(None, [os.environ.get('PYTHONPATH')])]))
        self.cluster, self.address = [], ''

    # processes
    def call(self, root, executor='local', env=None, **kw):
        given = dict(protocols=[p.to_dict() for p in self.wanted], root=str(root), template=str(self.template), executor=executor)
        self.counts['calls'] += 1
        if env is None and not kw: return Forked(given, self.env, self.home/f"{self.counts['calls']}.log")
        return subprocess.Popen([sys.executable, '-c', SWEEP, json.dumps(given)], env=env or self.env, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True, **kw)

    def ours(self, wanted=lambda process: True):
        "Living processes of this campaign"
        found = []
        for p in psutil.process_iter(['pid']):
            with contextlib.suppress(psutil.Error):
                if p.pid != os.getpid() and p.environ().get('FAULTS_ID') == self.id and p.status() != psutil.STATUS_ZOMBIE:
                    if wanted(p): found.append(p)
        return found

    def kernels(self, process):
        found = []
        with contextlib.suppress(psutil.Error):
            for c in psutil.Process(process.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error): found += [c] * is_kernel(c)
        return found

    def kill(self, *processes):
        for p in processes:
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                p.kill()
                self.counts['kills'] += 1

    def quiet(self, seconds=8.):
        "No kernel of this campaign lives, soon"
        end = time.time() + patience(seconds)
        while left := self.ours(is_kernel):
            if time.time() > end: return self.wrong.append(f'{len(left)} kernels outlive their parent') or self.kill(*left)
            time.sleep(.1)

    # the cluster
    def start_cluster(self):
        port = free_port()
        self.address, quiet = f'tcp://127.0.0.1:{port}', dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=self.env)
        dask = [sys.executable, '-m', 'dask']
        self.scheduler = subprocess.Popen([*dask, 'scheduler', '--host', '127.0.0.1', '--port', str(port), '--no-dashboard'], **quiet)
        self.worker = lambda: subprocess.Popen([*dask, 'worker', self.address, '--nthreads', '1', '--no-nanny', '--no-dashboard',
                                                '--host', '127.0.0.1', '--local-directory', str(self.home)], **quiet)
        self.cluster = [self.worker() for _ in range(3)]

    def stop_cluster(self):
        if not self.cluster: return
        for p in [*self.cluster, self.scheduler]:
            p.kill()
            p.wait()
        self.cluster = []

    # faults
    def strike(self, kind, root):
        "One call of the sweep with one fault"
        self.counts[kind] += 1
        executor, env, kw = ('local', None, {})
        if kind == 'worker':
            if not self.cluster: self.start_cluster()
            executor = self.address
        if kind == 'full' and not os.path.ismount(root): env = self.inject
        if kind == 'denied' and os.geteuid() == 0: env, kw = self.env, dict(preexec_fn=weak)
        process = self.call(root, executor, env, **kw)
        twin = self.call(root) if kind == 'twins' else None
        self.moment(process, kind)
        getattr(self, f'do_{kind}')(process, twin, root)
        for p in filter(None, (process, twin)):
            try: out = p.communicate(timeout=patience(90))[0]
            except subprocess.TimeoutExpired: out = self.wrong.append(f'{kind}: the sweep does not end') or p.kill() or ''
            if 'Traceback' in out and kind not in ('denied', 'full'): self.wrong.append(f'{kind}: {out[-300:]}')
        self.quiet()

    def moment(self, process, kind):
        "Wait for a random time after the first kernel is there; sometimes before"
        if self.rng.random() < .1: return time.sleep(self.rng.uniform(0, 2))
        end = time.time() + patience(30)
        while process.poll() is None and time.time() < end and not self.ours(is_kernel): time.sleep(.1)
        time.sleep(self.rng.uniform(0, 3))

    def stop(self, process):
        if process.poll() is None: process.send_signal(signal.SIGINT)

    def do_kernel(self, process, twin, root):
        if there := self.kernels(process): self.kill(self.rng.choice(there))
        time.sleep(.3)
        self.stop(process)
    def do_parent(self, process, twin, root): self.kill(process)
    def do_all(self, process, twin, root): self.kill(process, *self.kernels(process))
    def do_twins(self, process, twin, root):
        self.kill(process)
        time.sleep(.5)
        self.stop(twin)
    def do_worker(self, process, twin, root):
        i = self.rng.randrange(3)
        self.kill(self.cluster[i])
        self.cluster[i].wait()
        self.cluster[i] = self.worker()
    def do_full(self, process, twin, root):
        if os.path.ismount(root):
            with contextlib.suppress(OSError), open(root/'filler', 'wb', buffering=0) as f:
                while f.write(b'0' * 4096): pass
        else: self.full.touch()
        time.sleep(self.rng.uniform(.5, 3))
        self.stop(process)
        process.wait(patience(60))
        (root/'filler').unlink(missing_ok=True)
        self.full.unlink(missing_ok=True)
    def do_denied(self, process, twin, root):
        folders = [root, *(f for f in root.rglob('*') if f.is_dir())]
        for f in folders: f.chmod(0o555)
        time.sleep(self.rng.uniform(.5, 3))
        self.stop(process)
        process.wait(patience(60))
        for f in folders: f.chmod(0o755)

    # rounds
    def round(self, limit, reference=None):
        "Faults on one folder until its runs are done or `limit` kills are reached; then one calm call, and the questions"
        root = Path(tempfile.mkdtemp(dir=self.home))
        mount = ['mount', '-t', 'tmpfs', '-o', 'size=8m', 'none', root]
        disk = 'full' in self.kinds and subprocess.run(mount, capture_output=True).returncode == 0
        self.counts['rounds'] += 1
        stamps = {}
        try:
            while reference and self.counts['kills'] < limit and len(stamps) < len(self.wanted):
                self.strike(self.rng.choices(list(self.kinds), list(self.kinds.values()))[0], root)
                for r in find_runs(root):
                    if r.state().kind == 'done':
                        if stamps.setdefault(r.folder.name, (r/'DONE').stat().st_mtime_ns) != (r/'DONE').stat().st_mtime_ns:
                            self.wrong.append(f'{r.folder.name} was done twice')
            calm = self.call(root)
            out = calm.communicate(patience(180))[0]
            if calm.returncode: self.wrong.append(f'the last call: {out[-500:]}')
            return self.ask(root, reference, stamps)
        finally:
            if disk: subprocess.run(['umount', root])

    def ask(self, root, reference, stamps):
        "The tables of a round, after all questions"
        runs = find_runs(root)
        tables = {(r.folder.name, t): (r/f'{t}.csv').read_bytes() for r in runs for t in r.tables()}
        if reference and tables != reference: self.wrong.append(f'{root}: the tables differ from those of an undisturbed sweep')
        if not all(r.state(deep=True).kind == 'done' for r in runs): self.wrong.append(f'{root}: not all runs are done')
        again = [n for n, at in stamps.items() if (root/'tiny'/n/'DONE').stat().st_mtime_ns != at]
        names = {re.sub(r'^\.lock-\d+$', '.lock', f.name) for r in runs for f in r.folder.iterdir()}
        extra = [*(names ^ WHOLE), *(f.name for f in root.iterdir() if f.name != 'tiny')]
        self.wrong += [f'{n} was done twice' for n in again] + [f'left over: {n}' for n in extra]
        self.counts['runs'] += len(runs)
        self.counts['tables'] += len(tables)
        return tables

    def overlaps(self):
        "Claims of one run whose steps overlap in time, and steps done under an older claim after a newer one began"
        spans = collections.defaultdict(dict)
        for line in (self.home/'journal').read_text().splitlines():
            folder, token, step, at = line.rsplit(' ', 3)
            first, last = spans[folder].get(int(token), (float(at), 0))
            spans[folder][int(token)] = first, float(at)
        bad = 0
        for claims in spans.values():
            order = [claims[t] for t in sorted(claims)]
            bad += sum(a[1] > b[0] for a, b in zip(order, order[1:]))
            self.counts['taken over'] += len(order) - 1
        return bad

    def run(self, kills):
        "The whole campaign; a dict of counts and the list of what was wrong"
        start = time.time()
        reference = self.round(0)
        try:
            while self.counts['kills'] < kills:
                self.round(kills, reference)
                self.say(f"{time.time()-start:5.0f} s: {dict(self.counts)}" + (f", wrong: {self.wrong}" if self.wrong else ''), flush=True)
        finally: self.stop_cluster()
        if bad := self.overlaps(): self.wrong.append(f'{bad} runs were written by two at once')
        time.sleep(.5)
        if left := self.ours(): self.wrong.append(f'{len(left)} processes are left') or self.kill(*left)
        return dict(self.counts) | dict(seconds=round(time.time() - start), wrong=len(self.wrong)), self.wrong

SHELF = 'tables', 'add', 'pack', 'unpack', 'figures'
OPERATIONS = 'replace', 'rename', 'link', 'unlink', 'fsync', 'mkdir', 'rmdir' # of `os`: at one of them a process may die

def files_in(folder):
    "Every file below a folder, but for claims and checksums of pictures, with its bytes"
    hidden = lambda f: f.name.startswith('.lock-') or '.ulrs' in f.parts
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob('*')) if f.is_file() and not hidden(f)}

class Shelf:
    "What is done with finished runs, killed and called again"
    def __init__(self, seed, kinds=SHELF, say=print):
        self.rng, self.say, self.kinds = random.Random(seed), say, kinds
        self.counts, self.wrong, self.spent, self.steps = collections.Counter(), [], {}, {}
        self.home = Path(tempfile.mkdtemp(prefix='faults-shelf-'))
        run_tables.LARGE = 20_000 # so that small tables are Parquet too, as large ones are
        self.runs = [self.finished(self.home/'runs', i) for i in range(4)]
        self.ledgers = read_published(Path(__file__).resolve().parent.parent/'figures/data/synthetic/laptop') if 'figures' in kinds else {}
        if 'figures' in kinds: load_figures() # once for all forks
        self.begin, self.end = {}, {}
        for kind in kinds: self.prepare(kind)

    def finished(self, root, i, value=1.):
        "A finished run without a kernel, and a note of the user beside it"
        p = Protocol('tiny', .01*(i + 1), data_seeds=[1, 2], train_seeds=[1], settings=dict(steps=3))
        run = Run(root, p).start()
        rows = pd.DataFrame([dict(run=p.short, plr=p.plr, data_seed=d, metric='test_acc', value=value*(d + j)) for d in (1, 2) for j in range(300)])
        for table in ('metrics', 'curves'): run.write_table(table, rows)
        run.finish({})
        (run/'notes.md').write_text('mine')
        return run

    def prepare(self, kind):
        "The folder that a call finds, and the one that an undisturbed call leaves"
        folder = self.begin[kind] = self.home/f'{kind}-begin'
        folder.mkdir()
        (folder/'mine.txt').write_text('mine')
        if kind in ('tables', 'add'): publish(self.runs[:2], folder/'out')
        if kind == 'pack': pack(self.runs[:1], folder/'a.tar')
        if kind == 'unpack':
            pack(self.runs, self.home/'all.tar')
            shutil.copytree(self.runs[0].folder, folder/'runs/tiny'/self.runs[0].folder.name)
            begun = Run(folder/'runs', self.runs[1].protocol).start()
            begun.write_table('curves', pd.DataFrame([dict(run=begun.protocol.short, plr=1., value=2.)]))
            (begun/'other.md').write_text('of a run that is not finished')
        if kind == 'figures': self.call(kind, folder, older=True)
        done = self.fresh(kind)
        start = time.monotonic()
        if self.call(kind, done): raise RuntimeError(f'{kind} fails undisturbed')
        self.spent[kind], self.steps[kind] = time.monotonic() - start, int((self.home/'steps').read_text())
        self.end[kind] = files_in(done)
        shutil.rmtree(done)

    def fresh(self, kind):
        folder = Path(tempfile.mkdtemp(dir=self.home))/'here'
        shutil.copytree(self.begin[kind], folder)
        return folder

    def work(self, kind, folder, older=False):
        "One call, in this process"
        if kind == 'tables': publish(self.runs[1:], folder/'out')
        if kind == 'add': publish(self.runs[2:], folder/'out', add=True)
        if kind == 'pack': pack(self.runs, folder/'a.tar')
        if kind == 'unpack': unpack(self.home/'all.tar', folder/'runs')
        if kind != 'figures': return
        ledgers = dict(self.ledgers)
        if older: ledgers['metrics'] = ledgers['metrics'].assign(value=lambda m: m.value*.9)
        view = view_of('synthetic', ledgers, 'laptop', {})
        draw(view, folder/'pictures', ['finetune_accuracy', 'swa_accuracy'])

    def call(self, kind, folder, die_at=None, after=None, older=False):
        "One call in a fork, which dies at the file operation of this number, or is killed after this time: its exit code"
        pid = os.fork()
        if not pid:
            code, count = 1, [0]
            try:
                self.count_operations(count, die_at)
                self.work(kind, folder, older)
                (self.home/'steps').write_text(str(count[0]))
                code = 0
            except BaseException: traceback.print_exc()
            finally: os._exit(code)
        if after is not None:
            time.sleep(after)
            with contextlib.suppress(ProcessLookupError): os.kill(pid, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def count_operations(self, count, die_at):
        def counted(operation):
            def f(*a, **kw):
                count[0] += 1
                if count[0] == die_at: os.kill(os.getpid(), signal.SIGKILL)
                return operation(*a, **kw)
            return f
        for name in OPERATIONS: setattr(os, name, counted(getattr(os, name)))

    def strike(self, kind):
        "One kill, one or two calm calls, and the questions"
        folder = self.fresh(kind)
        for again in range(self.rng.choice((1, 1, 2))): # the call after a kill may be killed too
            when = self.moment(kind)
            code = self.call(kind, folder, **when)
            self.counts[kind] += 1
            self.counts['kills'] += code == -signal.SIGKILL
            if code not in (0, -signal.SIGKILL): self.wrong.append(f'{kind}: ended with {code} at {when}')
            self.lost(kind, folder, when)
        if self.call(kind, folder): self.wrong.append(f'{kind}: cannot be called again after {when}')
        end, left = files_in(folder), [f.name for f in folder.rglob('.*') if f.name.startswith(('.tmp-', '.ready'))]
        if left: self.wrong.append(f'{kind}: left over after {when}: {left}')
        if end != self.end[kind]:
            odd = sorted(k for k in end.keys() | self.end[kind].keys() if end.get(k) != self.end[kind].get(k))
            self.wrong.append(f'{kind}: not the end of an undisturbed call after {when}: {odd[:5]}')
        if not left and end == self.end[kind]: shutil.rmtree(folder.parent)

    def moment(self, kind):
        "When a call dies: at one of its file operations, or at some time"
        if self.rng.random() < .6: return dict(die_at=self.rng.randint(1, self.steps[kind]))
        return dict(after=self.rng.uniform(0, 1.1*self.spent[kind]))

    def lost(self, kind, folder, when):
        "Right after the kill: is what was there still there, whole, or already what is to come?"
        before, now, end = files_in(self.begin[kind]), files_in(folder), self.end[kind]
        whole = lambda f: now.get(f) in (before[f], end[f]) or f not in now and self.on_its_way(kind, folder, f)
        gone = [f for f in before if f in end and not whole(f)]
        if gone: self.wrong.append(f'{kind}: lost right after {when}: {gone[:5]}')

    def on_its_way(self, kind, folder, name):
        "Of a run that gives way to a finished one files go before others come; the pack has them"
        return kind == 'unpack' and self.runs[1].folder.name in name and not name.endswith('other.md')

    def run(self, kills):
        start = time.monotonic()
        while self.counts['kills'] < kills:
            self.strike(self.rng.choice(self.kinds))
            if self.counts['kills'] % 20 == 0: self.say(f"{time.monotonic()-start:5.0f} s: {dict(self.counts)}" + (f", wrong: {self.wrong[:3]}" if self.wrong else ''), flush=True)
        if not self.wrong: shutil.rmtree(self.home)
        return dict(self.counts) | dict(seconds=round(time.monotonic() - start), wrong=len(self.wrong)), self.wrong

def everything(seed, runs, kinds, kills):
    "Sweeps and the shelf, two and three fifths of the kills"
    mine, shelf = {k: KINDS[k] for k in kinds if k in KINDS}, [k for k in kinds if k in SHELF]
    share = 0 if not mine else 1 if not shelf else .4
    counts, wrong = collections.Counter(), []
    for campaign, n in ((Shelf(seed, shelf) if shelf else None, kills - round(share*kills)), (Campaign(seed, runs, mine) if mine else None, round(share*kills))):
        if not campaign: continue
        some, bad = campaign.run(n)
        counts.update(some)
        wrong += bad
    return dict(counts) | dict(wrong=len(wrong)), wrong

def lanes(a):
    "Several campaigns at once: the sum of their counts"
    with tempfile.TemporaryDirectory() as folder:
        more = ['--only', a.only] if a.only else []
        outs = [Path(folder)/f'{i}.csv' for i in range(a.lanes)]
        same = [sys.executable, __file__, '--kills', str(-(-a.kills//a.lanes)), '--runs', str(a.runs), *more]
        many = [subprocess.Popen([*same, '--seed', str(a.seed+i), '--out', str(out)]) for i, out in enumerate(outs)]
        for p in many: p.wait()
        total = collections.Counter()
        for out in outs:
            found = {k: int(v) for k, v in csv.reader(open(out)) if v.isdigit() and k != 'seed'}
            seconds = max(total['seconds'], found['seconds'])
            total.update(found)
            total['seconds'] = seconds
    return dict(total) | dict(lanes=a.lanes, wrong=total['wrong']), ['see above'] * bool(total['wrong'])

def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument('--kills', type=int, default=500)
    a.add_argument('--seed', type=int, default=0)
    a.add_argument('--runs', type=int, default=6, help='of the tiny study')
    a.add_argument('--only', help='kinds of faults, with commas')
    a.add_argument('--out', type=Path, help='write the counts there, as CSV')
    a.add_argument('--lanes', type=int, default=1, help='campaigns side by side, each with its own seed and folder')
    a = a.parse_args()
    kinds = a.only.split(',') if a.only else [*KINDS, *SHELF]
    counts, wrong = lanes(a) if a.lanes > 1 else everything(a.seed, a.runs, kinds, a.kills)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    words = dict(date=datetime.date.today().isoformat(), hardware=f'{cores} cores, {platform.system()}', seed=a.seed) | counts
    for k, v in words.items(): print(f'{k:12} {v}')
    for w in wrong: print('WRONG', w)
    if a.out:
        a.out.parent.mkdir(parents=True, exist_ok=True)
        with open(a.out, 'w', newline='') as f: csv.writer(f, lineterminator='\n').writerows([['what', 'value'], *words.items()])
    return bool(wrong)

if __name__ == '__main__': sys.exit(main())
