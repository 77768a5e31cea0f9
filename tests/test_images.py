"""Images are the same tensors however they come; they are decoded once, known by content, and refused in one line when unfit."""
import http.server, io, json, os, pickle, tarfile, threading, warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np, pytest, torch
import torch.nn.functional as F
from understanding_lrs.data import images, decoding, sources, cache, contents, loading, sizes, channels, augmentation
from understanding_lrs.core import system
from understanding_lrs.core.seeds import batches, epoch_order, stream

Image = pytest.importorskip('PIL.Image')
pa, pq = pytest.importorskip('pyarrow'), pytest.importorskip('pyarrow.parquet')

def pixels(n, size=8, seed=0): return np.random.default_rng(seed).integers(0, 256, (n, size, size, 3), np.uint8)
def encode(a, kind='PNG', mode=None, **kw):
    out, picture = io.BytesIO(), Image.fromarray(a)
    (picture.convert(mode) if mode else picture).save(out, kind, **kw)
    return out.getvalue()
def struct(x): return [{'bytes': b, 'path': ''} for b in x]

def parquet(folder, x, y, xt, yt, column='img', label='label', wrap=struct):
    "A data set in the hub's layout: encoded pictures and labels"
    folder.mkdir(parents=True, exist_ok=True)
    for part, blobs, labels in ('train', x, y), ('test', xt, yt):
        pq.write_table(pa.table({column: wrap(blobs), label: labels}), folder/f'{part}-00000-of-00001.parquet')
    return folder

def tree(folder, x, y, xt, yt, names=('ape', 'bee')):
    "The same as class folders"
    for part, blobs, labels in ('train', x, y), ('test', xt, yt):
        for i, (b, c) in enumerate(zip(blobs, labels)):
            f = folder/part/names[c]/f'{i:03}.png'
            f.parent.mkdir(parents=True, exist_ok=True)
            f.write_bytes(b)
    return folder

RAW, RAW_TEST = pixels(10), pixels(6, seed=1)
X, XT, Y, YT = [encode(a) for a in RAW], [encode(a) for a in RAW_TEST], [0, 1]*5, [0, 1]*3
DATA = dict(x=X, y=Y, xt=XT, yt=YT)
def chw(a): return torch.from_numpy(a.transpose(0, 3, 1, 2).copy())
def in_order(x, y): # (n, C, H, W), labels -> both in canonical order
    at = loading.canonical_order(x, torch.as_tensor(y))
    return x[at], torch.as_tensor(y)[at]

@pytest.fixture
def load(tmp_path):
    "load_images with its own cache; `load.said` is what it said"
    said = []
    f = partial(loading.load_images, progress=said.append, cache=tmp_path/'cache')
    f.said = said
    return f

def refused(call, *parts, kind=ValueError):
    "The error is one line and names `parts`"
    with pytest.raises(kind) as e: call()
    text = str(e.value)
    assert '\n' not in text and all(p in text for p in parts), text

# --- sources

@pytest.mark.parametrize('sub', ['', 'data', 'plain_text'])
@pytest.mark.parametrize('form', [dict(), dict(column='image'), dict(label='fine_label'), dict(wrap=list)])
def test_parquet(tmp_path, load, sub, form):
    parquet(tmp_path/'My Set'/sub, **DATA, **form)
    p = load(tmp_path/'My Set')
    for got, want in (((p.x_train, p.y_train), in_order(chw(RAW), Y)), ((p.x_test, p.y_test), in_order(chw(RAW_TEST), YT))):
        assert all(torch.equal(a, b) for a, b in zip(got, want))
    assert (p.name, p.classes, p.class_names, p.channels, p.size, p.n_train, p.n_test) == ('my-set', 2, ('0', '1'), 3, 8, 10, 6)
    assert p.id == f'my-set@{p.sha256[:12]}' and load.said == ['decoding 10 + 6 pictures of my-set']

def test_parquet_in_pieces_with_named_classes(tmp_path, load):
    info = {'info': {'features': {'label': {'names': ['ape', 'bee'], '_type': 'ClassLabel'}}}}
    parquet(tmp_path/'set', **DATA)
    (tmp_path/'set'/'train-00000-of-00001.parquet').unlink()
    for i, s in enumerate((slice(0, 4), slice(4, 10))):
        t = pa.table({'img': struct(X[s]), 'label': Y[s]}).replace_schema_metadata({'huggingface': json.dumps(info)})
        pq.write_table(t, tmp_path/'set'/f'train-{i:05}-of-00002.parquet', row_group_size=2)
    p = load(tmp_path/'set')
    assert torch.equal(p.x_train, in_order(chw(RAW), Y)[0]) and p.class_names == ('ape', 'bee') == load(p.id).class_names

def test_class_folders(tmp_path, load):
    "Classes in alphabetical order, their pictures spread over the set; hidden files are no pictures"
    folder = tree(tmp_path/'set', **DATA)
    (folder/'train'/'ape'/'.DS_Store').write_bytes(b'x')
    p = load(folder)
    assert torch.equal(p.x_train, in_order(chw(RAW), Y)[0]) and p.y_train.tolist() == [0, 1]*5 and p.class_names == ('ape', 'bee')
    assert torch.equal(load(folder).x_train, p.x_train) # from the cache

@pytest.mark.parametrize('mode', ['L', 'RGBA', 'P', '1', 'CMYK'])
def test_every_mode_becomes_rgb(tmp_path, load, mode):
    x = [encode(a, 'TIFF' if mode == 'CMYK' else 'PNG', mode) for a in RAW]
    p = load(parquet(tmp_path/'set', x, Y, XT, YT))
    want = [np.asarray(Image.open(io.BytesIO(b)).convert('RGB')) for b in x]
    assert torch.equal(p.x_train, in_order(chw(np.stack(want)), Y)[0])
    if mode == 'L': assert torch.equal(p.x_train[:, 0], p.x_train[:, 2])
    if mode == 'RGBA': assert torch.equal(p.x_train, in_order(chw(RAW), Y)[0])

def test_threads_do_not_change_the_result():
    blobs = [encode(a, 'JPEG') for a in pixels(600)]
    assert torch.equal(decoding.decode(blobs, str, threads=1), decoding.decode(blobs, str, threads=4))

def test_digits(load):
    p = pytest.importorskip('sklearn.datasets') and load('digits')
    assert (p.n_train, p.n_test, p.classes, p.channels, p.size) == (1297, 500, 10, 3, 8)
    assert p.x_train.max() == 255 and torch.equal(p.x_train[:, 0], p.x_train[:, 1])
    from sklearn.datasets import load_digits
    x, y = load_digits(return_X_y=True)
    both = torch.cat([p.x_train, p.x_test])[:, 0].flatten(1).double()*16/255
    order = stream('split', 0).permutation(1797)
    assert np.array_equal(both.round().numpy(), x[order]) and np.array_equal(torch.cat([p.y_train, p.y_test]).numpy(), y[order])
    assert p.id == load('digits').id == load(p.id).id

# --- torchvision, without a network

class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args): pass

@pytest.fixture
def fake_cifar(tmp_path, monkeypatch):
    "A tiny archive in CIFAR-10's format on a server of this machine; torchvision is told its address and its sums"
    datasets = pytest.importorskip('torchvision.datasets')
    from torchvision.datasets.utils import calculate_md5
    data = tmp_path/'server'/'cifar-10-batches-py'
    data.mkdir(parents=True)
    for name, x, y in ('a', RAW, Y), ('t', RAW_TEST, YT):
        x = np.stack([np.asarray(Image.fromarray(a).resize((32, 32))).transpose(2, 0, 1) for a in x])
        (data/name).write_bytes(pickle.dumps({'data': x.reshape(len(x), -1), 'labels': y}))
    (data/'meta').write_bytes(pickle.dumps({'label_names': ['ape', 'bee']}))
    sums = {f.name: calculate_md5(f) for f in data.iterdir()}
    archive = tmp_path/'server'/'cifar-10-python.tar.gz'
    with tarfile.open(archive, 'w:gz') as t: t.add(data, data.name)
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), partial(Quiet, directory=archive.parent))
    threading.Thread(target=server.serve_forever, kwargs=dict(poll_interval=.02)).start()
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    c, url = datasets.CIFAR10, f'http://127.0.0.1:{server.server_port}/{archive.name}'
    for k, v in dict(url=url, tgz_md5=calculate_md5(archive), train_list=[['a', sums['a']]], test_list=[['t', sums['t']]],
                     meta=dict(filename='meta', key='label_names', md5=sums['meta'])).items(): monkeypatch.setattr(c, k, v)
    yield archive
    server.shutdown()
    server.server_close()

def test_cifar_is_announced_and_fetched_once(fake_cifar, tmp_path, load, capfd):
    p = load('cifar10', folder=tmp_path/'archives')
    assert len(load.said) == 1 and all(w in load.said[0] for w in ('CIFAR10', '170 MB', 'http://127.0.0.1', str(tmp_path/'archives')))
    assert (p.name, p.n_train, p.n_test, p.size, p.class_names) == ('cifar10', 10, 6, 32, ('ape', 'bee'))
    fake_cifar.unlink()
    assert load('cifar10', folder=tmp_path/'elsewhere').id == p.id and len(load.said) == 1
    fresh = loading.load_images('cifar10', folder=tmp_path/'archives', cache=tmp_path/'other cache', progress=load.said.append)
    assert fresh.id == p.id and len(load.said) == 1, "the unpacked archive is used without a word"

def test_archive_put_by_hand(fake_cifar, tmp_path, load, monkeypatch, capfd):
    monkeypatch.setenv('ULRS_DATA', str(tmp_path/'by hand'))
    (tmp_path/'by hand').mkdir()
    os.rename(fake_cifar, tmp_path/'by hand'/fake_cifar.name)
    assert load('cifar10').n_train == 10

def test_offline_names_the_three_ways(fake_cifar, tmp_path, load, capfd):
    fake_cifar.unlink()
    refused(lambda: load('cifar10', folder=tmp_path/'archives'), 'CIFAR10', 'cifar-10-python.tar.gz', str(tmp_path/'archives'),
            'torchvision', 'train*.parquet', 'train/ and test/')

def test_missing_torchvision_is_one_line(load, monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'torchvision', None)
    refused(lambda: load('cifar100'), 'torchvision cannot be imported', torch.__version__)

# --- the cache

@pytest.fixture
def decodes(monkeypatch):
    "Counts the calls of the decoder"
    calls, plain = [], decoding.decode
    monkeypatch.setattr(sources, 'decode', lambda *args: calls.append(1) or plain(*args))
    return calls

def test_second_load_does_not_decode(tmp_path, load, decodes, monkeypatch):
    folder = parquet(tmp_path/'set', **DATA)
    p = load(folder)
    monkeypatch.chdir(tmp_path)
    for source in (folder, str(folder), 'set', './set', 'set/../set', p.id):
        q = load(source)
        assert q.id == p.id and all(torch.equal(getattr(p, k), getattr(q, k)) for k in p.tensors)
    assert len(decodes) == 2 and load.said == ['decoding 10 + 6 pictures of set']
    assert {f.suffix for f in (tmp_path/'cache'/'images').glob('*.*')} == {'.safetensors'}

@pytest.mark.parametrize('make', [parquet, tree])
def test_changed_source_is_noticed(tmp_path, load, make):
    p = load(make(tmp_path/'set', **DATA))
    q = load(make(tmp_path/'set', [encode(pixels(1, seed=2)[0]), *X[1:]], Y, XT, YT))
    assert q.id != p.id and torch.equal(q.x_test, p.x_test) and len(load.said) == 2
    assert load(p.id).sha256 == p.sha256, "the earlier set stays"

def test_new_file_in_a_folder_is_noticed(tmp_path, load):
    folder = tree(tmp_path/'set', **DATA)
    load(folder)
    (folder/'train'/'bee'/'new.png').write_bytes(X[0])
    assert load(folder).n_train == 11

@pytest.mark.parametrize('where', [0, 12, .3, .6, .99])
def test_flipped_byte_is_noticed(tmp_path, load, decodes, where):
    folder = parquet(tmp_path/'set', **DATA)
    p = load(folder)
    file = tmp_path/'cache'/'images'/f'{p.id}.safetensors'
    raw = bytearray(file.read_bytes())
    raw[where if isinstance(where, int) else int(where*len(raw))] ^= 4
    file.write_bytes(raw)
    refused(lambda: load(p.id), p.id, 'damaged', 'once more')
    with pytest.warns(UserWarning, match='damaged') as seen: q = load(folder)
    assert len(seen) == 1 and '\n' not in str(seen[0].message) and str(folder) in str(seen[0].message)
    assert q.id == p.id and len(decodes) == 4
    with warnings.catch_warnings(action='error'): assert load(p.id).sha256 == load(folder).sha256 == p.sha256

@pytest.mark.parametrize('cut', [0, 5, .5])
def test_cut_file_is_noticed(tmp_path, load, cut):
    p = load(parquet(tmp_path/'set', **DATA))
    file = tmp_path/'cache'/'images'/f'{p.id}.safetensors'
    file.write_bytes(file.read_bytes()[:cut if isinstance(cut, int) else int(cut*file.stat().st_size)])
    refused(lambda: load(p.id), 'damaged')

def test_renamed_file_is_not_believed(tmp_path, load):
    p = load(parquet(tmp_path/'set', **DATA))
    images = tmp_path/'cache'/'images'
    os.rename(images/f'{p.id}.safetensors', images/'set@0123456789ab.safetensors')
    refused(lambda: load('set@0123456789ab'), 'checksum')

def test_unreadable_note_costs_a_decoding_only(tmp_path, load):
    folder = parquet(tmp_path/'set', **DATA)
    p = load(folder)
    for text in ('', '[]', '{"id": 3'):
        for note in (tmp_path/'cache'/'images'/'sources').glob('*.json'): note.write_text(text)
        assert load(folder).id == p.id

def test_unknown_id(load): refused(lambda: load('set@0123456789ab'), 'set@0123456789ab', 'path')

def test_failed_write_leaves_no_trace(tmp_path, load, monkeypatch):
    folder, plain = parquet(tmp_path/'set', **DATA), os.replace
    def full(a, b): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(os, 'replace', full)
    with pytest.warns(UserWarning, match='cannot be kept.*No space'): p = load(folder)
    assert not [f for f in (tmp_path/'cache').rglob('*') if f.suffix in ('.safetensors', '.json') or 'tmp' in f.name]
    monkeypatch.setattr(os, 'replace', plain)
    assert load(folder).id == p.id and load(p.id).id == p.id

def test_cache_that_cannot_be_written(tmp_path):
    "A file stands where the folder should be"
    (tmp_path/'cache').write_text('')
    with pytest.warns(UserWarning, match='ULRS_CACHE'):
        assert loading.load_images(parquet(tmp_path/'set', **DATA), cache=tmp_path/'cache', progress=lambda line: None).n_train == 10

def test_two_at_once_decode_once(tmp_path, load):
    folder, ids = parquet(tmp_path/'set', **DATA), []
    threads = [threading.Thread(target=lambda: ids.append(load(folder).id)) for _ in range(4)]
    for t in threads: t.start()
    for t in threads: t.join()
    assert len(ids) == 4 and len(set(ids)) == 1 and len(load.said) == 1

def test_one_cache_folder_for_kernels_and_pictures(monkeypatch, tmp_path):
    for value in ('', str(tmp_path)):
        monkeypatch.setenv('ULRS_CACHE', value)
        assert cache.image_cache() == system.cache_folder()/'images'

# --- bad input

def bad(**change): return lambda folder, load: load(parquet(folder/'set', **(DATA | change)))
def table(**columns):
    def call(folder, load):
        f = parquet(folder/'set', **DATA)
        pq.write_table(pa.table(columns), f/'train-00000-of-00001.parquet')
        return load(f)
    return call

BAD = {
    'no picture column': (bad(column='pixels'), ['train-00000', 'img or image', 'pixels']),
    'no label column': (bad(label='class'), ['train-00000', 'label', 'class']),
    'undecodable': (bad(x=[*X[:7], b'GIF89a nonsense', *X[8:]]), ['train-00000', 'row 7', 'cannot decode']),
    'cut': (bad(xt=[*XT[:2], XT[2][:60], *XT[3:]]), ['test-00000', 'row 2', 'cannot decode']),
    'no bytes': (bad(x=[*X[:3], None, *X[4:]]), ['row 3', 'no picture']),
    '16 bits': (bad(x=[encode(RAW[0, :, :, 0].astype(np.uint16)), *X[1:]]), ['row 0', '8 bits']),
    'mixed sizes': (bad(x=[*X[:4], encode(pixels(1, 9)[0]), *X[5:]]), ['row 4', '9x9', '8x8']),
    'oblong': (bad(x=[encode(a[:6]) for a in RAW]), ['8 wide and 6 high', 'square']),
    'test of another size': (bad(xt=[encode(a) for a in pixels(6, 4)]), ['(3, 8, 8)', '(3, 4, 4)']),
    'labels from 1': (bad(y=[1, 2]*5, yt=[1, 2]*3), ['no picture', 'class 0']),
    'gap': (bad(y=[0, 0, 0, 0, 2, 2, 2, 2, 2, 2]), ['no picture', 'class 1', '0..2']),
    'huge label': (bad(y=[0, 10**12]*5), ['1000000000000', '0..classes-1']),
    'negative label': (bad(y=[0, 1]*4 + [0, -1]), ['training picture 9', 'label -1', '0..1']),
    'test label out of range': (bad(yt=[0, 1, 0, 1, 0, 2]), ['test picture 5', 'label 2', '0..1']),
    'one picture in a class': (bad(y=[0]*9 + [1]), ['one picture of class 1', 'training']),
    'class missing from test': (bad(yt=[0]*6), ['test', 'no picture of class 1']),
    'empty': (table(img=pa.array([], pa.binary()), label=pa.array([], pa.int64())), ['train-00000', 'no rows']),
    'labels are words': (table(img=X, label=['ape', 'bee']*5), ['label', 'string', 'integers']),
    'label missing': (table(img=X, label=[0, None]*5), ['row 1', 'label is missing']),
    'pictures are numbers': (table(img=list(range(10)), label=Y), ['img', 'int64', 'encoded']),
}

@pytest.mark.parametrize('name', BAD)
def test_bad_parquet(tmp_path, load, name):
    call, parts = BAD[name]
    refused(lambda: call(tmp_path, load), *parts)
    assert not list((tmp_path/'cache').rglob('*.safetensors')), "nothing unfit is kept"

def test_no_parquet_file(tmp_path, load):
    folder = parquet(tmp_path/'set', **DATA)
    (folder/'test-00000-of-00001.parquet').write_bytes(b'PAR1 no PAR1')
    refused(lambda: load(folder), 'test-00000', 'Parquet')
    (folder/'test-00000-of-00001.parquet').unlink()
    refused(lambda: load(folder), 'no test*.parquet')

def test_two_sets_below_one_folder(tmp_path, load):
    for name in 'ab': parquet(tmp_path/'sets'/name, **DATA)
    refused(lambda: load(tmp_path/'sets'), "['a', 'b']", 'pass one')

def test_bad_folders(tmp_path, load):
    refused(lambda: load(tmp_path/'nowhere'), 'nowhere', 'cifar10', kind=FileNotFoundError)
    (tmp_path/'empty').mkdir()
    refused(lambda: load(tmp_path/'empty'), 'train*.parquet', 'train and test')
    (tmp_path/'file').write_text('')
    refused(lambda: load(tmp_path/'file'), 'is a file')
    for part in ('train', 'test'): (tmp_path/'bare'/part/'ape').mkdir(parents=True)
    refused(lambda: load(tmp_path/'bare'), 'no pictures')

def test_bad_class_folders(tmp_path, load):
    folder = tree(tmp_path/'set', **DATA)
    (folder/'train'/'ape'/'notes.txt').write_text('not a picture')
    refused(lambda: load(folder), 'notes.txt', 'cannot decode')
    (folder/'train'/'ape'/'notes.txt').unlink()
    (folder/'train'/'cat').mkdir()
    refused(lambda: load(folder), "only in train: ['cat']")
    (folder/'test'/'cat').mkdir()
    refused(lambda: load(folder), 'no picture of class 2')

# --- subsets and sizes

def test_the_order_of_the_rows_does_not_matter():
    p = made(n=42, classes=3)
    for order in (p.y_train.argsort(stable=True), torch.randperm(42, generator=torch.Generator().manual_seed(1))):
        q = loading.ordered(replace(p, x_train=p.x_train[order], y_train=p.y_train[order]))
        assert q.sha256 == loading.ordered(p).sha256 and sizes.subset(q, 6).sha256 == sizes.subset(loading.ordered(p), 6).sha256
    assert q.y_train.tolist() == [0, 1, 2]*14 and loading.ordered(q).sha256 == q.sha256
    for x, y in zip(q.x_train, q.y_train): assert y == p.y_train[[torch.equal(x, v) for v in p.x_train].index(True)]

def test_a_rare_class_is_spread_over_the_set():
    y = torch.tensor([0]*30 + [1]*10 + [2]*2)
    got = y[loading.canonical_order(torch.arange(42, dtype=torch.uint8).view(42, 1, 1, 1), y)]
    assert all((got[i:i + 12] == 1).sum() in (2, 3, 4) for i in range(0, 31)) and (got == 2).nonzero().flatten().diff() > 15

@pytest.mark.parametrize('side, size, framed', [(28, 32, 32), (28, 16, 32), (8, 8, 8), (8, 4, 8), (28, 14, 28), (30, 16, 32), (8, 24, 24)])
def test_another_size(side, size, framed):
    "black around the picture up to the next multiple, then smaller"
    p = made(size=side)
    a = (framed - side)//2
    want = torch.zeros(40, 3, framed, framed, dtype=torch.uint8)
    want[..., a:a + side, a:a + side] = p.x_train
    got = sizes.resized(p, size)
    assert torch.equal(got.x_train, sizes.shrink(want, size)) and got.x_test.shape[-1] == size and got.y_train is p.y_train
    with pytest.raises(ValueError, match='at least 1'): sizes.resized(p, 0)

def made(n=40, m=20, size=8, classes=4):
    g = torch.Generator().manual_seed(0)
    x, xt = (torch.randint(0, 256, (k, 3, size, size), generator=g, dtype=torch.uint8) for k in (n, m))
    return images.Images('made', tuple(map(str, range(classes))), x, torch.arange(n)%classes, xt, torch.arange(m)%classes)

def test_subset_is_the_first_of_each_class_in_stored_order():
    p = made()
    shuffled = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    p = replace(p, x_train=p.x_train[shuffled], y_train=p.y_train[shuffled])
    q, seen, want = sizes.subset(p, 12, 8), [0]*4, []
    for i, c in enumerate(p.y_train.tolist()): # one by one
        if seen[c] < 3: want.append(i)
        seen[c] += 1
    assert torch.equal(q.x_train, p.x_train[want]) and torch.equal(q.y_train, p.y_train[want])
    assert q.n_test == 8 and sizes.subset(p).id == p.id != q.id

def test_bad_subsets():
    refused(lambda: sizes.subset(made(), 44), 'training', '11 of each', 'at most 40')
    refused(lambda: sizes.subset(made(), None, 24), 'test', 'at most 20')
    refused(lambda: sizes.subset(made(), 4), 'one picture')
    for n in (0, -4, 3): refused(lambda: sizes.subset(made(), n), 'at least one of each of the 4', str(n))
    refused(lambda: sizes.subset(made(), 42), 'training', '11 of each', 'at most 40')

def test_a_rest_goes_to_the_first_classes():
    q = sizes.subset(made(), 10)
    assert q.n_train == 10 and torch.bincount(q.y_train).tolist() == [3, 3, 2, 2]

@pytest.mark.parametrize('size', [1, 2, 4, 8])
def test_shrink_is_area_averaging(size):
    x = made().x_train
    want = torch.floor(F.avg_pool2d(x.double(), 8//size) + .5).to(torch.uint8)
    assert torch.equal(sizes.shrink(x, size), want)

def test_bad_sizes():
    for size in (3, 16, 0, -1): refused(lambda: sizes.shrink(made().x_train, size), 'divide', str(size))
    refused(lambda: sizes.shrink(made().x_train.float(), 4), 'uint8')
    refused(lambda: channels.normalise(made().x_train, (.5,)*3, (.1, 0., .1)), 'std', '> 0')

# --- what the network sees

def test_channel_stats():
    x = made().x_train
    mean, std = channels.channel_stats(x)
    f = (x.double()/255).transpose(0, 1).flatten(1)
    assert np.allclose(mean, f.mean(1), rtol=1e-12) and np.allclose(std, f.std(1, correction=0), rtol=1e-12)

def test_resident_pictures_equal_a_dataloader():
    "torchvision's transforms in a torch DataLoader, fed with the same order: same batches, the last one partial"
    T = pytest.importorskip('torchvision.transforms')
    p, order = made(n=44), epoch_order(3, 44, 1)
    f = T.Compose([T.ToTensor(), T.Normalize(channels.CIFAR_MEAN, channels.CIFAR_STD)])
    rows = [(f(Image.fromarray(a.permute(1, 2, 0).numpy())), int(c)) for a, c in zip(p.x_train, p.y_train)]
    there = list(torch.utils.data.DataLoader(rows, batch_size=16, sampler=order.tolist()))
    here = [(channels.normalise(p.x_train[b]), p.y_train[b]) for b in batches(torch.from_numpy(order), 16)]
    assert [len(y) for _, y in here] == [16, 16, 12] and len(there) == 3
    for (x, y), (a, b) in zip(here, there):
        assert torch.equal(y, b)
        torch.testing.assert_close(x, a, rtol=1e-6, atol=1e-6)
    with pytest.raises(AssertionError): # another epoch is another order
        torch.testing.assert_close(channels.normalise(p.x_train[epoch_order(3, 44, 2)[:16]]), there[0][0], rtol=1e-6, atol=1e-6)

def naive(x, seed, epoch, pad, flip):
    "Picture by picture: pad, cut out, mirror"
    out, rng = torch.empty_like(x), stream('augment', seed, epoch)
    for i, a in enumerate(x):
        u, v, w = rng.random(3)
        big = torch.zeros(x.shape[1], x.shape[2] + 2*pad, x.shape[3] + 2*pad, dtype=x.dtype)
        big[:, pad:pad + x.shape[2], pad:pad + x.shape[3]] = a
        r, c = int(u*(2*pad + 1)), int(v*(2*pad + 1))
        a = big[:, r:r + x.shape[2], c:c + x.shape[3]]
        out[i] = a.flip(2) if flip and w >= .5 else a
    return out

@pytest.mark.parametrize('pad,flip', [(4, True), (2, False), (0, True), (0, False)])
def test_augment_equals_the_loop(pad, flip):
    x = made(n=60).x_train
    assert torch.equal(augmentation.augment(x, 5, 2, pad, flip), naive(x, 5, 2, pad, flip))
    z = channels.normalise(x)
    assert torch.equal(augmentation.crop_flip(z, augmentation.augment_table(5, 2, 60, pad, flip), pad), naive(z, 5, 2, pad, flip))

def test_augment_depends_on_seed_epoch_and_position_only():
    x = made(n=40).x_train
    whole = augmentation.augment(x, 1, 0)
    for b in batches(torch.from_numpy(epoch_order(1, 40, 0)), 16): assert torch.equal(augmentation.augment(x[b], 1, 0, index=b), whole[b])
    assert torch.equal(augmentation.augment_table(1, 0, 7), augmentation.augment_table(1, 0, 40)[:7])
    tables = [augmentation.augment_table(*k, 40) for k in ((1, 0), (0, 1), (1, 1), (2, 0))]
    assert all(not torch.equal(a, b) for i, a in enumerate(tables) for b in tables[:i])

def test_every_place_is_equally_likely():
    "40,000 draws, 81 places and a coin: each share within 5 standard errors"
    n, t = 40_000, augmentation.augment_table(0, 0, 40_000)
    share = torch.bincount(t[:, 0]*9 + t[:, 1], minlength=81)/n
    assert (share - 1/81).abs().max() < 5*(1/81/n)**.5 and abs(t[:, 2].double().mean() - .5) < 5*.5/n**.5

# --- the order of an epoch

def test_epoch_order():
    for epoch in range(3): assert sorted(epoch_order(1, 50, epoch)) == list(range(50))
    from understanding_lrs.core.seeds import batch_order
    want = np.stack([b for e in range(3) for b in batches(epoch_order(1, 50, e), 16) if len(b) == 16])
    assert np.array_equal(batch_order(1, 50, 16, 0, 9), want)
    assert not np.array_equal(epoch_order(1, 50, 0), epoch_order(1, 50, 0, 'finetune_order'))
    assert [len(b) for b in batches(np.arange(50), 16)] == [16, 16, 16, 2] and [len(b) for b in batches(np.arange(3), 16)] == [3]

# --- the check itself can fail

def test_hash_sees_every_part():
    p = made()
    others = [replace(p, **{k: v}) for k, v in dict(x_train=p.x_train.flip(0), y_train=(p.y_train + 1)%4, x_test=p.x_test ^ 1,
                                                    y_test=p.y_test.flip(0)).items()]
    both = {'a': torch.arange(6), 'b': torch.arange(3)}
    assert len({p.sha256, *(q.sha256 for q in others)}) == 5
    assert images.content_hash(both) != images.content_hash({'a': torch.arange(6).view(2, 3), 'b': torch.arange(3)})
    assert images.content_hash(both) != images.content_hash({'a': torch.arange(6, dtype=torch.int32), 'b': torch.arange(3)})

def test_a_wrong_crop_is_seen():
    x = made(n=60).x_train
    table = augmentation.augment_table(5, 2, 60)
    table[17, 2] ^= 1
    assert not torch.equal(augmentation.crop_flip(x, table), naive(x, 5, 2, 4, True))

# --- real pictures

def test_cifar10_jpeg(root, tmp_path):
    folder = root.parent/'shared'/'data'/'cifar10-jpeg'
    if not folder.exists(): pytest.skip("the pictures of CIFAR-10 (JPEG) are not beside the project")
    p = loading.load_images(folder, cache=tmp_path, progress=lambda line: None)
    assert (p.name, p.n_train, p.n_test, p.classes, p.channels, p.size) == ('cifar10-jpeg', 50_000, 10_000, 10, 3, 32)
    assert torch.bincount(p.y_train).tolist() == [5000]*10 and torch.bincount(p.y_test).tolist() == [1000]*10
    mean, _ = channels.channel_stats(p.x_train)
    assert np.allclose(mean, channels.CIFAR_MEAN, atol=2e-3)
    of_one = (p.x_train[:5000].float()/255).std((2, 3)).mean(0)
    assert np.allclose(of_one, channels.CIFAR_STD, atol=1e-2), "the released std is the mean std of single pictures"

def test_what_is_written_down_of_cifar10_is_what_a_copy_holds(root, tmp_path):
    known, folder = contents.CONTENTS['cifar10'], root.parent/'shared'/'data'/'cifar10'
    if not folder.exists(): pytest.skip("the original CIFAR-10 is not beside the project")
    p = loading.load_images(folder, cache=tmp_path, progress=lambda line: None)
    assert (p.id, p.n_train, p.n_test, p.size, p.classes) == (known.id, known.n_train, known.n_test, known.size, known.classes)

def test_published_runs_name_cifar10_as_plans_do(root):
    "A plan that knows the content finds the runs that were made from it"
    from understanding_lrs.runs.published import read_published
    from understanding_lrs.studies.registry import protocols, resolved
    runs = read_published(root/'figures/data/convnetsi32_cifar10/laptop')['runs']
    planned = resolved(protocols('convnetsi32_cifar10', 'laptop', train_seeds=range(1, 11)), here=False, read=False)
    assert {p.key for p in planned} == {*runs.key}

def test_pictures_of_ones_own_from_a_folder_to_figures(tmp_path, capsys):
    "seven classes of 8x8, numbers of pictures that seven does not divide"
    from PIL import Image
    from understanding_lrs.app.cli import main
    from understanding_lrs.runs.store import Run
    from understanding_lrs.studies.registry import protocols, resolved
    from understanding_lrs.studies.trial import live
    g = torch.Generator().manual_seed(0)
    for half,n in (('train', 18), ('test', 9)):
        for c in range(7):
            (folder := tmp_path/'mine'/half/f'class{c}').mkdir(parents=True)
            for i in range(n): Image.fromarray((torch.rand(8, 8, 3, generator=g)*80 + 25*c).byte().numpy()).save(folder/f'{i}.png')
    own = dict(data=str(tmp_path/'mine'), n_train=100, n_test=60)
    for p in resolved(protocols('convnetsi32_cifar10', 'smoke', overrides=own)): live(p, Run(tmp_path/'runs', p))
    changed = ' '.join(f'--set {k}={v}' for k,v in own.items())
    assert main(f'figures convnetsi32_cifar10 --preset smoke {changed} --runs {tmp_path}/runs'.split()) == 0
    drawn = {Path(l).name for l in capsys.readouterr().out.split()}
    assert {f'convnetsi32_cifar10_{f}.svg' for f in ('pretraining', 'finetune_and_swa', 'geometry', 'bands')} <= drawn
    assert 'preset smoke' not in (tmp_path/'runs/convnetsi32_cifar10/custom/figures/convnetsi32_cifar10_pretraining.svg').read_text()
