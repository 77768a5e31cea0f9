"""Images are what a viewer shows, whole and each once, or they are refused in one line before any work; nothing hangs or fills the memory."""
import io, json, os, shutil, time, unicodedata, warnings, zlib
from functools import partial
from pathlib import Path
import numpy as np, pytest, torch
from understanding_lrs.data import decoding, parquet, sources, known_sets, loading
from understanding_lrs.core.errors import InputError
from understanding_lrs.studies.registry import protocols, resolved

Image = pytest.importorskip('PIL.Image')
pa, pq = pytest.importorskip('pyarrow'), pytest.importorskip('pyarrow.parquet')

RNG = np.random.default_rng(7)
def picture(side=8): return Image.fromarray(RNG.integers(0, 256, (side, side, 3), np.uint8))
def blob(p, kind='PNG', **kw):
    p.save(out := io.BytesIO(), kind, **kw)
    return out.getvalue()

@pytest.fixture
def load(tmp_path):
    said = []
    f = partial(loading.load_images, progress=said.append, cache=tmp_path/'cache')
    f.said = said
    return f

def tree(folder, n=6, classes=('ape', 'bee'), halves=('train', 'test')):
    for half in halves:
        for c in classes:
            (d := folder/half/c).mkdir(parents=True)
            for i in range(n): picture().save(d/f'{i}.png')
    return folder

def table(file, labels, names=None, column='label', blobs=None):
    file.parent.mkdir(parents=True, exist_ok=True)
    t = pa.table({'image': pa.array(blobs or [blob(picture()) for _ in labels]), column: list(labels)})
    if names: t = t.replace_schema_metadata({'huggingface': json.dumps({'info': {'features': {column: {'names': names}}}})})
    pq.write_table(t, file)

def refused(call, *parts):
    with pytest.raises(ValueError) as e: call()
    text = str(e.value)
    assert '\n' not in text and all(p in text for p in parts), text

# --- what a viewer shows

@pytest.mark.parametrize('orientation, turn', [(1, None), (3, 'ROTATE_180'), (6, 'ROTATE_90'), (8, 'ROTATE_270'), (2, 'FLIP_LEFT_RIGHT'),
                                               (4, 'FLIP_TOP_BOTTOM'), (5, 'TRANSPOSE'), (7, 'TRANSVERSE')])
@pytest.mark.parametrize('kind', ['PNG', 'TIFF', 'WEBP'])
def test_a_picture_is_turned_as_its_data_say(orientation, turn, kind):
    upright = picture()
    stored = upright.transpose(Image.Transpose[turn]) if turn else upright # what is stored is turned the other way
    (exif := Image.Exif())[0x0112] = orientation
    lossless = dict(lossless=True) if kind == 'WEBP' else {}
    assert np.array_equal(decoding.decode_one(blob(stored, kind, exif=exif, **lossless), ''), np.asarray(upright).transpose(2, 0, 1))

def test_transparent_parts_are_white_and_hide_what_is_below():
    a = np.zeros((4, 4, 4), np.uint8)
    a[0, 0], a[1, 1], a[2, 2] = (255, 0, 0, 255), (9, 9, 9, 0), (0, 0, 0, 128)
    got = decoding.decode_one(blob(Image.fromarray(a)), '').transpose(1, 2, 0)
    assert got[0, 0].tolist() == [255, 0, 0] and got[1, 1].tolist() == [255]*3 and got[2, 2].tolist() == [127]*3

# --- sizes

def huge(width, height):
    "A PNG of a few hundred bytes that says it is large"
    def chunk(kind, data): return len(data).to_bytes(4, 'big') + kind + data + zlib.crc32(kind + data).to_bytes(4, 'big')
    head = width.to_bytes(4, 'big') + height.to_bytes(4, 'big') + bytes([1, 0, 0, 0, 0])
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', head) + chunk(b'IDAT', zlib.compress(bytes(4096))) + chunk(b'IEND', b'')

@pytest.mark.parametrize('size', [(20_000, 20_000), (2049, 8), (2**31 - 1, 2**31 - 1)])
def test_a_picture_bomb_is_refused_by_its_header(tmp_path, load, size):
    folder = tree(tmp_path/'set')
    (folder/'test/bee/9.png').write_bytes(huge(*size))
    start = time.process_time()
    with warnings.catch_warnings(action='error'): refused(lambda: load(folder), 'test/bee/9.png', 'cannot decode')
    assert time.process_time() - start < 2

def test_many_large_pictures_are_refused_together(tmp_path, load, monkeypatch):
    folder = tree(tmp_path/'set')
    monkeypatch.setattr(decoding, 'memory_limit', lambda: 4*24*3*8*8 - 1)
    monkeypatch.setattr(sources, 'decode', None) # would be called
    refused(lambda: load(folder), '24 pictures need', 'a quarter of the memory')

def test_a_table_that_says_the_same_over_and_over_is_refused(tmp_path, load, monkeypatch):
    table(tmp_path/'set/train.parquet', [0, 1]*500, blobs=[blob(picture(32))]*1000)
    table(tmp_path/'set/test.parquet', [0, 1])
    monkeypatch.setattr(parquet, 'memory_limit', lambda: 4*10**6)
    refused(lambda: load(tmp_path/'set'), 'train.parquet', '1,000 pictures like the first')

# --- things that are no pictures

def pipe(f): os.mkfifo(f)
def device(f): f.symlink_to('/dev/zero')
def nowhere(f): f.symlink_to('/nowhere/1.png')
def folder_below(f): f.mkdir()
def script(f): f.write_bytes(b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n') # another program would run it
def pointer(f): f.write_text('version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n')

@pytest.mark.parametrize('what', [pipe, device, nowhere, folder_below, script, pointer])
def test_what_is_no_picture_is_named(tmp_path, load, what):
    folder = tree(tmp_path/'set')
    what(folder/'train/ape/x.png')
    refused(lambda: load(folder), 'train/ape/x.png')

def test_a_parquet_name_that_is_no_file(tmp_path, load):
    table(tmp_path/'set/train.parquet', [0, 1]*5)
    os.mkfifo(tmp_path/'set/test.parquet')
    refused(lambda: load(tmp_path/'set'), 'test.parquet', 'not a plain file')

# --- sets that are not whole, or contradict themselves

def shards(folder, *names):
    for i, name in enumerate(names): table(folder/f'{name}.parquet', [0, 1]*4)
    table(folder/'test-00000-of-00001.parquet', [0, 1]*2)
    return folder

WHOLE = [['train-00000-of-00002', 'train-00001-of-00002'], ['train-00001-of-00002', 'train-00002-of-00002'], ['train'], ['train-0', 'train-1'],
         ['train-00000-of-00001-a09b74b3ef9c3b56'], ['train_clean-00000-of-00001', 'train_other-00000-of-00002', 'train_other-00001-of-00002']]
BROKEN = [(['train-00001-of-00002'], 'train-00000-of-00002.parquet'), (['train-00000-of-00003', 'train-00002-of-00003'], 'train-00001-of-00003.parquet'),
          (['train-00000-of-00002'], '1 of 2 shards are missing'), (['train-00000-of-00001', 'train-00000-of-00002', 'train-00001-of-00002'], 'of one version'),
          (['train-00000-of-00001', 'train-00000-of-00001 (1)'], 'same shard'), (['train-00000-of-00001-aaaa', 'train-00000-of-00001-bbbb'], 'same shard')]

@pytest.mark.parametrize('names', WHOLE)
def test_whole_sets_are_read(tmp_path, load, names): assert load(shards(tmp_path/'set', *names)).n_train == 8*len(names)

@pytest.mark.parametrize('names, part', BROKEN)
def test_a_set_that_is_not_whole_is_refused(tmp_path, load, names, part): refused(lambda: load(shards(tmp_path/'set', *names)), part)

@pytest.mark.parametrize('copy', ['train2', 'train (1)', 'test2'])
def test_the_same_rows_twice_are_refused(tmp_path, load, copy):
    "also where the name says nothing, and where the second file was written anew"
    table(tmp_path/'set/train.parquet', [0, 1]*4)
    table(tmp_path/'set/test.parquet', [0, 1]*2)
    pq.write_table(pq.read_table(tmp_path/'set/train.parquet'), tmp_path/'set'/f'{copy}.parquet', compression='gzip')
    refused(lambda: load(tmp_path/'set'), 'train.parquet', copy, 'same pictures')

CATS, DOGS = ['cat', 'dog'], ['dog', 'cat']
@pytest.mark.parametrize('train, more, test', [(CATS, CATS, DOGS), (CATS, DOGS, CATS), (CATS, CATS, [*CATS, 'cow']), (None, CATS, DOGS)])
def test_one_label_with_two_meanings_is_refused(tmp_path, load, train, more, test):
    for name, names in (('train-0', train), ('train-1', more), ('test', test)): table(tmp_path/f'set/{name}.parquet', [0, 1]*4, names)
    refused(lambda: load(tmp_path/'set'), 'class ', 'alike', '.parquet')

def test_names_that_some_files_lack_are_taken_from_the_others(tmp_path, load):
    for name, names in (('train-0', None), ('train-1', CATS), ('test', None)): table(tmp_path/f'set/{name}.parquet', [0, 1]*4, names)
    assert load(tmp_path/'set').class_names == ('cat', 'dog')

def test_labels_of_two_columns_are_refused(tmp_path, load):
    table(tmp_path/'set/train.parquet', [0, 1]*4)
    table(tmp_path/'set/test.parquet', [0, 1]*4, column='fine_label')
    refused(lambda: load(tmp_path/'set'), 'fine_label', 'same columns')

def test_two_layouts_in_one_folder_are_refused(tmp_path, load):
    folder = tree(tmp_path/'set')
    for half in 'train', 'test': table(folder/f'data/{half}.parquet', [0, 1]*4)
    refused(lambda: load(folder), 'train*.parquet', 'folders train and test')

def test_copies_are_told(tmp_path, load):
    folder = tree(tmp_path/'set')
    for f in list((folder/'train/ape').iterdir()): shutil.copy(f, folder/f'train/ape/{f.stem} (1).png')
    shutil.copy(folder/'train/bee/0.png', folder/'test/bee/9.png')
    with pytest.warns(UserWarning, match='6 of 18 training pictures are copies of others and 1 of 13 test pictures are also training'): load(folder)

# --- names

def test_names_that_are_not_utf8(tmp_path, load):
    base = os.fsencode(tmp_path)
    folder = Path(os.fsdecode(base + b'/caf\xe9'))
    tree(folder, classes=('ape', os.fsdecode(b'na\xefve')))
    p = load(folder)
    assert p.class_names == ('ape', 'naïve') == load(p.id).class_names and load(folder).id == p.id

def test_one_accent_written_in_two_ways_is_one_class(tmp_path, load):
    folder = tree(tmp_path/'set', classes=('ape', unicodedata.normalize('NFC', 'née')), halves=['train'])
    tree(folder, classes=('ape', unicodedata.normalize('NFD', 'née')), halves=['test'])
    assert load(folder).class_names == ('ape', 'née')
    (folder/'train'/unicodedata.normalize('NFD', 'née')).mkdir()
    refused(lambda: load(folder), 'read the same')

@pytest.mark.parametrize('name', ['digits', 'cifar10', 'pets@0123456789ab'])
def test_a_folder_with_the_name_of_a_known_set_is_told(tmp_path, load, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    tree(tmp_path/name)
    if name == 'digits': load(name)
    else:
        monkeypatch.setattr(loading, 'read_cifar', lambda *args: known_sets.read_digits())
        try: load(name)
        except ValueError: pass # there is no such set in the cache
    assert f'for the folder write ./{name}' in load.said[0]
    load.said.clear()
    assert load(f'./{name}').n_train == 12 and not any('known set' in line for line in load.said)

def test_an_empty_name_is_not_this_folder(load, monkeypatch, tmp_path):
    monkeypatch.chdir(tree(tmp_path/'set'))
    refused(lambda: load(''), 'empty')

# --- the cache

def test_names_of_classes_are_under_the_checksum_too(tmp_path, load):
    p = load(tree(tmp_path/'set', classes=('apes', 'bees')))
    file = tmp_path/'cache/images'/f'{p.id}.safetensors'
    file.write_bytes(file.read_bytes().replace(b'apes', b'axes'))
    refused(lambda: load(p.id), 'damaged')

def test_a_lock_that_is_a_link_leaves_its_target_alone(tmp_path, load):
    load(folder := tree(tmp_path/'set'))
    (tmp_path/'precious').write_text('mine')
    lock, = (tmp_path/'cache/images/sources').glob('*.lock')
    lock.unlink()
    lock.symlink_to(tmp_path/'precious')
    load(folder)
    assert (tmp_path/'precious').read_text() == 'mine'

def test_runs_are_refused_where_their_pictures_cannot_be_kept(tmp_path, monkeypatch):
    (tmp_path/'cache').write_text('')
    monkeypatch.setenv('ULRS_CACHE', str(tmp_path/'cache'))
    with pytest.raises(InputError, match='set ULRS_CACHE to a folder that can be written'):
        resolved(protocols('convnetsi32_cifar10', 'smoke', overrides=dict(data=str(tree(tmp_path/'set')))))

# --- folders of classes, small sets

def classes(folder, **numbers):
    for c, n in numbers.items():
        (folder/c).mkdir(parents=True)
        for i in range(n): picture().save(folder/c/f'{i:02}.png')
    return folder

def test_folders_of_classes_are_split_the_same_way_each_time(tmp_path, load):
    folder = classes(tmp_path/'pets', cat=10, dog=17)
    p = load(folder)
    assert (p.n_train, p.n_test, p.class_names) == (8 + 14, 2 + 3, ('cat', 'dog')) and 'one picture in five' in load.said[0]
    again = loading.load_images(shutil.copytree(folder, tmp_path/'moved'/'pets'), cache=tmp_path/'other', progress=print)
    assert again.id == p.id
    both = torch.cat([p.x_train, p.x_test]).flatten(1).tolist()
    assert len({tuple(v) for v in both}) == 27, "every picture is in one half"

@pytest.mark.parametrize('numbers, part', [(dict(cat=9, dog=2), 'class dog has 2 pictures'), (dict(cat=9), 'one folder of pictures, cat'),
                                           (dict(train=9, other=9), 'one of these layouts'), (dict(cat=9, val=9), 'one of these layouts')])
def test_folders_that_cannot_be_split(tmp_path, load, numbers, part): refused(lambda: load(classes(tmp_path/'pets', **numbers)), part)

def test_validation_is_the_test_set_where_there_is_no_other(tmp_path, load):
    assert load(tree(tmp_path/'a', halves=('train', 'val'))).n_test == 12
    for half in 'train', 'validation': table(tmp_path/f'b/{half}-00000-of-00001.parquet', [0, 1]*4)
    assert load(tmp_path/'b').n_test == 8

def small(tmp_path, monkeypatch, **given):
    monkeypatch.setenv('ULRS_CACHE', str(tmp_path/'cache'))
    folder = tmp_path/'pets'
    if not folder.exists(): classes(folder, cat=10, dog=17)
    p, = resolved(protocols('convnetsi32_cifar10', 'laptop', plrs=[1e-3], overrides=dict(data=str(folder), size=8) | given))
    return p.settings['n_train'], p.settings['n_test']

def test_a_small_set_is_used_whole_unless_a_number_is_asked_for(tmp_path, monkeypatch, capsys):
    assert small(tmp_path, monkeypatch) == (0, 0)
    assert 'all 22 training pictures are used, not 2,000: class 0 (cat) has 8' in capsys.readouterr().err
    assert small(tmp_path, monkeypatch, n_train=10, n_test=4) == (10, 4)
    with pytest.raises(InputError, match=r'class 0 \(cat\) has only 8'): small(tmp_path, monkeypatch, n_train=40)

def test_a_preset_keeps_its_numbers_where_there_are_enough(monkeypatch):
    p, = resolved(protocols('convnetsi32_cifar10', 'smoke', plrs=[1e-3], overrides=dict(data='digits')))
    same, = resolved(protocols('convnetsi32_cifar10', 'smoke', plrs=[1e-3]))
    assert p.key == same.key
