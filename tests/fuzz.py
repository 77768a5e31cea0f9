"""Change files at random and read them with every loader: each is read as it was, or refused in one line that names it, and in time.

    python tests/fuzz.py --files 1200     all loaders, in turn (`make fuzz`)
    python tests/fuzz.py --only cache:17  one case again, with its traceback

What counts as a fault: an exception that is not meant for people, a message of several lines or without the name of a file, a case that takes
longer than its limit, a process that dies, a file left behind, and another value than the one that was stored, wherever a checksum could tell.
"""
import argparse, contextlib, io, json, multiprocessing, os, random, shutil, signal, sys, tarfile, tempfile, time, traceback, warnings
from pathlib import Path
os.environ.setdefault('OMP_NUM_THREADS', '1')
import numpy as np, pandas as pd, torch
from PIL import Image
from safetensors.torch import save_file
from understanding_lrs.app.cli_networks import network_of, read_network
from understanding_lrs.data import images, sources, loading
from understanding_lrs.training import native
from understanding_lrs.core.errors import RunDamaged
from understanding_lrs.runs import archives, published, tables
from understanding_lrs.networks.convnet import ConvNetSpec
from understanding_lrs.runs.find import find_runs
from understanding_lrs.runs.ledger import ledger
from understanding_lrs.runs.lock import CLAIM
from understanding_lrs.runs.protocol import Protocol
from understanding_lrs.runs.records import file_entry
from understanding_lrs.runs.manifest import seal_record
from understanding_lrs.runs.store import Run

LIMIT = 20. # seconds a case; a machine under load is given more

# --- what is changed: bytes, and values of JSON

def flip(data, rng):
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 4, 32))): data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)

def some_range(data, rng): return sorted((rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)))

def cut(data, rng): return data[:rng.randrange(len(data))]
def drop(data, rng): a, b = some_range(data, rng); return data[:a] + data[b:]
def double(data, rng): a, b = some_range(data, rng); return data[:b] + data[a:]
def blank(data, rng): a, b = some_range(data, rng); return data[:a] + bytes([rng.choice((0, 255, 32))])*min(b - a, 64) + data[a + min(b - a, 64):]
def noise(data, rng): a = rng.randrange(len(data)); return data[:a] + rng.randbytes(rng.choice((1, 4, 8, 64))) + data[a + 8:]
def append(data, rng): return data + rng.choice((b'\0', b'\n', b'x'*100, data))
def empty(data, rng): return b''
def large_numbers(data, rng): a = rng.randrange(len(data)); return data[:a] + rng.choice((b'\xff'*4, b'\xff'*8, b'\x7f' + b'\xff'*3, b'\0'*8)) + data[a + 4:]
def digits(data, rng):
    "Another digit in the place of one, for texts"
    at = [i for i, b in enumerate(data) if 48 <= b <= 57]
    if not at: return flip(data, rng)
    i = rng.choice(at)
    return data[:i] + rng.choice((b'9', b'-', b'e', b'99999999999999999999', b'.', b'')) + data[i + 1:]

BYTES = flip, flip, flip, cut, drop, double, blank, noise, append, empty, large_numbers, digits

ODD_VALUES = None, -1, 0, 1e308, '', 'x', '../../x', '/etc/passwd', [], {}, [[[]]], True, 'é\udce9', 'x'*5000, 2**70, float('nan'), float('inf')

def json_value(data, rng):
    "One value of a JSON document changed to something else, left out or nested deeply"
    document = json.loads(data)
    places = []
    def walk(v):
        for k in (list(v) if isinstance(v, dict) else range(len(v)) if isinstance(v, list) else ()):
            places.append((v, k))
            walk(v[k])
    walk(document)
    if not places: return b'[]'
    where, key = rng.choice(places)
    kind = rng.random()
    if kind < .15: del where[key]
    elif kind < .2: where[key] = 'DEEP'
    elif kind < .3 and isinstance(where, dict): where['odd'] = where.pop(key)
    else: where[key] = rng.choice(ODD_VALUES)
    text = json.dumps(document)
    return text.replace('"DEEP"', '['*100_000 + ']'*100_000).encode()

# --- the loaders: each makes its files once, and reads a changed copy of them

def tell(v): # tensors, tables and plain values as text that is equal for equal values
    if isinstance(v, torch.Tensor): return images.content_hash({'': v})
    if isinstance(v, np.ndarray): return tell(torch.from_numpy(v))
    if isinstance(v, pd.DataFrame): return tables.table_bytes(v).decode()
    if isinstance(v, dict): return '{' + ', '.join(f'{k}: {tell(x)}' for k, x in sorted(v.items())) + '}' # safetensors has no order
    return '[' + ', '.join(map(tell, v)) + ']' if isinstance(v, (list, tuple)) else repr(v)

def told(p): return tell([p.name, p.class_names, p.tensors])

P = Protocol('tiny', .1, flrs=[.01], data_seeds=[1], train_seeds=[1], settings=dict(width=3))
PIXELS = np.random.default_rng(3).integers(0, 256, (24, 8, 8, 3), np.uint8)

def write_pictures(folder, kinds=('png',)):
    for i, a in enumerate(PIXELS):
        f = folder/('train' if i < 16 else 'test')/f'c{i%2}'/f'{i:02}.{kinds[i//2%len(kinds)]}'
        f.parent.mkdir(parents=True, exist_ok=True)
        (exif := Image.Exif())[0x0112] = 3
        Image.fromarray(a).save(f, **dict(exif=exif) if f.suffix in ('.png', '.jpg', '.tiff', '.webp') else {})
    return folder

def read_pictures(folder): return told(loading.load_images(folder, cache=folder.parent/'cache', progress=lambda line: None))

def write_parquet(folder):
    import pyarrow as pa, pyarrow.parquet as pq
    folder.mkdir(parents=True)
    for half, a in ('train', PIXELS[:16]), ('test', PIXELS[16:]):
        blobs = []
        for x in a:
            Image.fromarray(x).save(out := io.BytesIO(), 'PNG')
            blobs.append(out.getvalue())
        pq.write_table(pa.table({'img': blobs, 'label': [0, 1]*(len(a)//2)}), folder/f'{half}.parquet')

def write_run(root):
    run = Run(root, P).start()
    run.write_table('metrics', pd.DataFrame([dict(plr=.1, metric=m, data_seed=1, train_seed=1, value=90. + i) for i, m in enumerate('abc')]))
    run.save_states({'pretrain:w': torch.arange(12.).view(2, 6), 'flr=0.01:w': torch.ones(2, 6)}, dict(step=3))
    run.finish({})
    return run

def read_run(root):
    run, = find_runs(root)
    if run.trouble: raise RunDamaged(f'{run.folder}: {run.trouble}')
    if (s := run.state(deep=True)).kind != 'done': raise RunDamaged(f'{run.folder}: {s.kind}, {s.why}')
    return tell([run.protocol.key, run.table('metrics'), *run.load_states(), ledger([run]).drop(columns=['date', 'peak_mib'])])

class Kind:
    "One kind of files: how they are made and read, and whether another value would be noticed"
    sealed, mutations = True, BYTES
    def make(self, folder): raise NotImplementedError
    def files(self, folder): return sorted(f for f in folder.rglob('*') if f.is_file() and not f.name.startswith('.'))
    def read(self, folder): raise NotImplementedError
    def reseal(self, folder, file): "Make checksums fit again, for readers that must not trust them"

class Folder(Kind):
    def make(self, folder): write_pictures(folder/'set')
    def read(self, folder): return read_pictures(folder/'set')
class Formats(Folder):
    sealed = False # JPEG, BMP and others have no checksum
    def make(self, folder): write_pictures(folder/'set', ('jpg', 'gif', 'bmp', 'tiff', 'webp', 'ppm'))
class Parquet(Folder):
    sealed = False # of labels and names there is none
    def make(self, folder): write_parquet(folder/'set')
class Names(Parquet):
    "A table whose description of its classes somebody has written"
    mutations = ()
    def make(self, folder):
        write_parquet(folder/'set')
        for file in self.files(folder): self.describe(file, json.dumps({'info': {'features': {'label': {'names': ['ape', 'bee']}}}}).encode())
    def describe(self, file, text):
        import pyarrow.parquet as pq
        pq.write_table(pq.read_table(file).replace_schema_metadata({'huggingface': text}), file)
    def change(self, file, rng):
        import pyarrow.parquet as pq
        self.describe(file, rng.choice((json_value, json_value, flip, cut))(pq.read_schema(file).metadata[b'huggingface'], rng))
class Cache(Kind):
    "Images by their id: there is only the cache"
    def make(self, folder):
        self.id = loading.load_images(write_pictures(folder/'set'), cache=folder/'cache', progress=lambda line: None).id
        shutil.rmtree(folder/'set')
    def files(self, folder): return sorted((folder/'cache'/'images').glob('*.safetensors'))
    def read(self, folder): return told(loading.load_images(self.id, cache=folder/'cache', progress=lambda line: None))
class Notes(Kind):
    "Images by their folder: what is wrong with the cache costs a decoding"
    mutations = (*BYTES, json_value)
    def make(self, folder): read_pictures(write_pictures(folder/'set'))
    def files(self, folder): return sorted((folder/'cache').rglob('*.json'))
    def read(self, folder):
        for note in self.files(folder): # the stamp holds the place and times of the files, which a copy changes
            with contextlib.suppress(Exception):
                known = json.loads(note.read_bytes())
                known['stamp'] = loading.stamp_of(sources.folder_source(folder/'set'))
                note.write_text(json.dumps(known))
        return read_pictures(folder/'set')
class Network(Kind):
    sealed = False # a file of weights has no checksum
    def make(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        save_file(ConvNetSpec(2, 3, 8).build(0).state_dict(), folder/'net.safetensors', {'format': 'pt'})
    def read(self, folder):
        state, settings = read_network(str(folder/'net.safetensors'))
        class Images: size, classes, channels = 8, 3, 3
        return tell(dict(network_of(str(folder/'net.safetensors'), state, None, Images, settings).state_dict()))
class States(Kind):
    def make(self, folder): self.name = str(write_run(folder/'runs').folder.relative_to(folder))
    def files(self, folder): return [folder/self.name/'states.safetensors']
    def read(self, folder): return tell(list(read_network(f'{folder/self.name}/states.safetensors::flr=0.01@1')))
class Checkpoint(Kind):
    def make(self, folder): Run(folder/'runs', P).start().save_checkpoint(dict(w=torch.arange(6.), n=torch.tensor([3])), dict(stage='pretrain', step=3))
    def files(self, folder): return list(folder.rglob('checkpoint.safetensors'))
    def read(self, folder):
        run = Run(folder/'runs', P)
        if (s := run.state(deep=True)).kind != 'partial': raise RunDamaged(f'{run.folder}: {s.kind}, {s.why}')
        return tell(list(run.load_checkpoint()))
class RunFolder(Kind):
    mutations = (*BYTES, json_value)
    def make(self, folder): write_run(folder/'runs')
    def read(self, folder): return read_run(folder/'runs')
class OwnRun(RunFolder):
    "A run whose protocol and marker somebody has changed, with keys and checksums that fit"
    sealed, mutations = False, (json_value,)
    def files(self, folder): return sorted(f for f in folder.rglob('*') if f.name in ('protocol.json', 'DONE'))
    def reseal(self, folder, file):
        run = file.parent
        with contextlib.suppress(Exception):
            record = json.loads((run/'protocol.json').read_bytes())
            with contextlib.suppress(Exception): record['key'] = Protocol.from_dict(record['protocol']).key
            (run/'protocol.json').write_text(json.dumps(record))
            done = json.loads((run/'DONE').read_bytes())
            if file.name == 'protocol.json': done['files']['protocol.json'] = file_entry((run/'protocol.json').read_bytes())
            done['sha256'] = seal_record(record['key'], done['files'])['sha256']
            (run/'DONE').write_text(json.dumps(done))
class Notice(Kind):
    "Progress and claims: what is wrong there is as if they were not there"
    mutations = (*BYTES, json_value)
    def make(self, folder):
        run = Run(folder/'runs', P).start()
        with run.lock(): pass
        run.progress('pretrain', 1, 2)
    def files(self, folder): return [*folder.rglob('progress.json'), *folder.rglob(f'{CLAIM}*')]
    def read(self, folder):
        run = Run(folder/'runs', P)
        run.state(), run.owner()
        with run.lock(): return tell(run.state().kind)
class Pack(Kind):
    suffix = '.tar.gz'
    def make(self, folder):
        write_run(folder/'from')
        archives.pack(find_runs(folder/'from'), folder/f'a{self.suffix}')
        shutil.rmtree(folder/'from')
    def read(self, folder):
        archives.unpack(folder/f'a{self.suffix}', folder/'to')
        return read_run(folder/'to')
class PlainPack(Pack): suffix = '.tar'
class OwnPack(PlainPack):
    "A pack whose manifest somebody has written"
    sealed, mutations = False, (json_value,)
    def reseal(self, folder, file): pass
    def change(self, file, rng):
        with tarfile.open(file) as tar: members = {m.name: tar.extractfile(m).read() for m in tar}
        members['manifest.json'] = json_value(members['manifest.json'], rng)
        with tarfile.open(file, 'w') as tar:
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
class Published(Kind):
    mutations = (*BYTES, json_value)
    def make(self, folder):
        write_run(folder/'runs')
        large, tables.LARGE = tables.LARGE, 300 # one table becomes Parquet
        try: published.publish(find_runs(folder/'runs'), folder/'out')
        finally: tables.LARGE = large
        shutil.rmtree(folder/'runs')
    def files(self, folder): return sorted((folder/'out').iterdir())
    def read(self, folder):
        tables = published.read_published(folder/'out')
        return tell([p.key for p in published.published_protocols(folder)] + [tables[k] for k in sorted(tables)])
class OwnTables(Published):
    "Tables whose checksums somebody has made to fit"
    sealed = False
    def reseal(self, folder, file):
        with contextlib.suppress(Exception):
            record = json.loads((folder/'out'/'tables.json').read_bytes())
            for name, entry in record['files'].items(): entry.update(file_entry((folder/'out'/name).read_bytes()))
            (folder/'out'/'tables.json').write_text(json.dumps(record))
class Library(Kind):
    "A compiled library: the bytes that were kept, or none"
    def make(self, folder): native.keep_library(folder/'kernels'/'k-0.so', os.urandom(5000))
    def read(self, folder):
        if (data := native.kept_library(folder/'kernels'/'k-0.so')) is None: raise ValueError('k-0.so is not believed')
        return tell(torch.tensor(list(data)))

KINDS = dict(folder=Folder, formats=Formats, parquet=Parquet, names=Names, cache=Cache, notes=Notes, network=Network, states=States, checkpoint=Checkpoint, run=RunFolder,
             own_run=OwnRun, notice=Notice, pack=Pack, plain_pack=PlainPack, own_pack=OwnPack, published=Published, own_tables=OwnTables, library=Library)

# --- one case

class TooLong(BaseException): "A case takes longer than its limit"

def change(kind, folder, rng):
    "Change one file of a copy; its name"
    file = rng.choice(kind.files(folder))
    if hasattr(kind, 'change'): kind.change(file, rng)
    else:
        data = file.read_bytes()
        fits = [m for m in kind.mutations if data and (m is not json_value or file.suffix == '.json' or file.name == 'DONE')] or [append]
        file.write_bytes(rng.choice(fits)(data, rng))
    kind.reseal(folder, file)
    return file.name

def outcome(kind, folder, want):
    "What a loader makes of a changed copy: `refused`, `same`, `other`, or a fault in words"
    around = set(folder.parent.iterdir())
    def late(*_): raise TooLong
    signal.signal(signal.SIGALRM, late)
    signal.alarm(int(LIMIT*max(1, os.getloadavg()[0]/(os.cpu_count() or 1))))
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter('ignore')
            got = kind.read(folder)
    except (ValueError, OSError) as e: # InputError is a ValueError
        words = str(e)
        if isinstance(e, OSError) and not e.filename: return f'{type(e).__name__} without a file: {words}'
        named = any(f.name in words for f in folder.rglob('*')) or 'the networks' in words or 'tables' in words or 'runs.csv' in words
        return 'refused' if named and '\n' not in words else f'unclear: {type(e).__name__}: {words[:300]}'
    except TooLong: return 'too long'
    except BaseException as e: return f'{type(e).__name__}: {str(e)[:200]}\n{traceback.format_exc(limit=-3)}'
    finally: signal.alarm(0)
    left = [f.name for f in folder.rglob('.tmp-*')] + [f.name for f in set(folder.parent.iterdir()) - around]
    if left: return f'left behind: {left}'
    if got == want: return 'same'
    return 'a different value, silently' if kind.sealed else 'other'

def prepared(name, base):
    "The files of one kind, and what they say"
    kind, folder = KINDS[name](), base/name/'whole'
    folder.mkdir(parents=True)
    kind.make(folder)
    copy = shutil.copytree(folder, base/name/'look')
    want = kind.read(copy)
    shutil.rmtree(copy)
    return kind, folder, want

def one(kind, name, whole, want, index, seed):
    "Case `index` of a kind: which file was changed, and the outcome"
    rng, copy = random.Random(f'{seed} {name} {index}'), whole.parent/f'case{index}'
    shutil.copytree(whole, copy, symlinks=True)
    try:
        file = change(kind, copy, rng)
        return file, outcome(kind, copy, want)
    finally: shutil.rmtree(copy, ignore_errors=True)

def work(name, base, first, count, seed, pipe):
    "Cases of one kind, in a process of their own; each is announced before it is begun"
    with contextlib.suppress(FileNotFoundError): shutil.rmtree(base/name)
    kind, whole, want = prepared(name, base)
    for i in range(first, first + count):
        pipe.send((i, None, None))
        pipe.send((i, *one(kind, name, whole, want, i, seed)))
    pipe.send(None)

def campaign(
    files:int,        # to change, over all kinds
    seed:int=0,
    kinds=tuple(KINDS),
    say=print,
) -> dict:            # kind -> counts; `faults` is the list of what went wrong
    "Change files and read them"
    counts, faults, base = {}, [], Path(tempfile.mkdtemp(prefix='fuzz-'))
    methods = multiprocessing.get_context('fork')
    for k, name in enumerate(kinds):
        share, at = files*(k + 1)//len(kinds) - files*k//len(kinds), 0
        found = counts[name] = dict(files=share, refused=0, same=0, other=0, faults=0)
        while at < share:
            here, there = methods.Pipe(duplex=False)
            child = methods.Process(target=work, args=(name, base, at, share - at, seed, there))
            child.start()
            there.close()
            begun = at
            try:
                while (message := here.recv()) is not None:
                    begun, file, result = message
                    if result is None: continue
                    at = begun + 1
                    found[result if result in found else 'faults'] += 1
                    if result not in found: faults.append(f'{name}:{begun} ({file}): {result}')
            except EOFError: # the process died
                child.join()
                faults.append(f'{name}:{begun}: the process died with {child.exitcode}')
                found['faults'] += 1
                at = begun + 1
            child.join()
        say(f'{name:12}', *(f'{k} {v:5}' for k, v in found.items()), flush=True)
    shutil.rmtree(base, ignore_errors=True)
    return counts | dict(faults=faults)

def main():
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument('--files', type=int, default=1200, help='how many to change')
    ask.add_argument('--seed', type=int, default=0)
    ask.add_argument('--kinds', default=','.join(KINDS), help='only these, with commas')
    ask.add_argument('--only', help='KIND:NUMBER, one case again')
    args = ask.parse_args()
    if args.only:
        name, index = args.only.split(':')
        with tempfile.TemporaryDirectory() as tmp: return print(*one(*((lambda k, w, v: (k, name, w, v))(*prepared(name, Path(tmp)))), int(index), args.seed))
    start = time.time()
    result = campaign(args.files, args.seed, args.kinds.split(','))
    total = {k: sum(c[k] for n, c in result.items() if n != 'faults') for k in ('files', 'refused', 'same', 'other', 'faults')}
    print(f"{total['files']:,} files changed in {time.time() - start:.0f} s: {total['refused']:,} refused in one line, {total['same']:,} read as they were, "
          f"{total['other']:,} of formats without a checksum read as something else, {total['faults']} faults")
    for fault in result['faults']: print(fault)
    sys.exit(bool(result['faults']))

if __name__ == '__main__': main()
