"""Sound and text: files that cannot be used are one line that names them; groups of features and linear probes have known answers; seeds of exploration are not recorded."""
import io, wave
import numpy as np, pandas as pd, pytest, torch
from understanding_lrs.analysis.evidence import Evidence, made_up
from understanding_lrs.analysis.sequences import C26, C27, C28, C29
from understanding_lrs.analysis.verdicts import NOT, REPRODUCED, answers
from understanding_lrs.core.errors import InputError, OutOfTime
from understanding_lrs.core.sphere import invariant_groups
from understanding_lrs.data.sequences import Known, chosen, fetched, keep, kept_file, load_kept
from understanding_lrs.data import speech, text
from understanding_lrs.networks.sequences import FramesSpec, TokensSpec
from understanding_lrs.probes.further import linear_accuracy, probe_further
from understanding_lrs.probes.groups import example_tones, probe_groups
from understanding_lrs.runs.store import Run
from understanding_lrs.studies.registry import STUDIES, protocols, resolved
from understanding_lrs.studies.trial import live

STUDY_IDS = 'speech', 'text'

@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch): monkeypatch.setenv('ULRS_CACHE', str(tmp_path/'cache'))

def wav(samples, rate=8000, channels=1, width=2):
    out = io.BytesIO()
    with wave.open(out, 'wb') as w:
        w.setparams((channels, width, rate, 0, 'NONE', ''))
        w.writeframes(np.asarray(samples, f'<i{width}' if width > 1 else np.uint8).tobytes())
    return out.getvalue()

def digits(folder, change=None, name='1_ann_9.wav'):
    "Ten short recordings of two digits, and one more file"
    folder.mkdir(parents=True, exist_ok=True)
    g = np.random.default_rng(0)
    for d in (0, 1):
        for take in range(5): (folder/f'{d}_ann_{take}.wav').write_bytes(wav(g.integers(-9000, 9000, 3000)))
    if change is not None: (folder/name).write_bytes(change)
    return folder

# --- files

@pytest.mark.parametrize('content, words', [
    (b'', 'is no wav file'), (b'RIFF....WAVE', 'is no wav file'), (wav([]), 'has no samples'), (b'ID3 music', 'is no wav file'),
    (wav(np.zeros(30), width=2)[:-30], 'is cut off|is no wav file|has no samples')])
def test_a_bad_recording_is_one_line_that_names_it(tmp_path, content, words):
    folder = digits(tmp_path/'d', content)
    with pytest.raises(InputError, match=words) as e: resolved(protocols('speech', 'smoke', overrides=dict(data=str(folder), n_train=0)))
    assert '1_ann_9.wav' in str(e.value) and '\n' not in str(e.value)

@pytest.mark.parametrize('rate', [4000, 11025, 16000, 22050, 44100, 48000])
def test_other_rates_are_resampled(rate):
    t = np.arange(rate)/rate
    x = speech.as_8khz(np.rint(9000*np.sin(2*np.pi*500*t))[:, None].astype(np.int16), rate)
    assert abs(len(x) - 8000) <= 1
    spectrum = abs(np.fft.rfft(x[:8000].astype(float), 8000))
    assert spectrum.argmax() == 500

def test_stereo_is_the_mean_and_widths_are_one_scale():
    one = np.arange(-50, 50)*100
    both, _ = speech.read_wav(wav(np.stack([one, -one], 1), channels=2), 'x')
    assert (speech.as_8khz(both, 8000) == 0).all()
    wide, _ = speech.read_wav(wav(one*65536, width=4), 'x')
    assert (speech.as_8khz(wide, 8000) == one).all()
    narrow, _ = speech.read_wav(wav(one//256 + 128, width=1), 'x')
    assert abs(speech.as_8khz(narrow, 8000) - one).max() <= 256

def test_silence_and_long_recordings_become_frames():
    for n in (1, 100, 90_000):
        x = speech.log_mel(np.zeros(n, np.int16), 32, 24)
        assert x.shape == (24, 32) and np.isfinite(x).all()

def test_one_class_or_no_files_are_refused(tmp_path):
    digits(tmp_path/'d')
    for f in (tmp_path/'d').glob('1_*'): f.unlink()
    with pytest.raises(ValueError, match='one class only, 0'): speech.load_speech(tmp_path/'d')
    (tmp_path/'empty').mkdir()
    with pytest.raises(ValueError, match='has no .wav files'): speech.load_speech(tmp_path/'empty')
    with pytest.raises(ValueError, match='there is no folder'): speech.load_speech(tmp_path/'nowhere')
    with pytest.raises(ValueError, match='there is no folder'): speech.load_speech('')

def test_more_than_there_are_says_how_many(tmp_path):
    with pytest.raises(InputError, match='40 pieces are 20 of each class, but class 0 has only 4; ask for at most 8'):
        resolved(protocols('speech', 'smoke', overrides=dict(data=str(digits(tmp_path/'d')), n_train=40)))

@pytest.mark.parametrize('content, words', [
    ('a\né'.encode('latin-1'), 'line 2 is not UTF-8'), (b'', 'is empty'), (b'a\n\nb\n', 'line 2 is empty'), ('a\n'.encode('utf-16'), 'is not UTF-8')])
def test_a_bad_text_is_one_line_that_names_it(tmp_path, content, words):
    (tmp_path/'t').mkdir()
    (tmp_path/'t/good.txt').write_text('\n'.join('a fine film'.split()*5))
    (tmp_path/'t/bad.txt').write_bytes(content)
    with pytest.raises(InputError, match=words) as e: resolved(protocols('text', 'smoke', overrides=dict(data=str(tmp_path/'t'), n_train=0)))
    assert 'bad.txt' in str(e.value) and '\n' not in str(e.value)

def test_one_kind_of_sentence_is_refused(tmp_path):
    (tmp_path/'t').mkdir()
    (tmp_path/'t/good.txt').write_text('fine\n'*9)
    with pytest.raises(ValueError, match='one class only, good'): text.load_text(tmp_path/'t')
    pd.DataFrame(dict(text=['a', ''], label=[0, 1])).to_csv(tmp_path/'t.csv', index=False)
    with pytest.raises(ValueError, match='t.csv, row 2: text or label is empty'): text.load_text(tmp_path/'t.csv')
    pd.DataFrame(dict(words=['a'], label=[0])).to_csv(tmp_path/'u.csv', index=False)
    with pytest.raises(ValueError, match='has no column text, only words, label'): text.load_text(tmp_path/'u.csv')

def test_bom_and_accents_are_read(tmp_path):
    (tmp_path/'a.csv').write_bytes('text,label\nun été,0\nl’art,1\n'.encode('utf-8-sig') + b''.join(f'x{i},{i % 2}\n'.encode() for i in range(10)))
    s = text.load_text(tmp_path/'a.csv')
    words = [text.words_of(p) for p in s.pieces]
    assert ['un', 'été'] in words and ['l’art'] in words

def test_halves_of_a_folder_are_kept(tmp_path):
    for half in ('train', 'test'): digits(tmp_path/'d'/half)
    s = speech.load_speech(tmp_path/'d')
    assert (int(s.test.sum()), int((~s.test).sum()), s.names['speaker']) == (10, 10, ('ann',))
    digits(tmp_path/'d')
    with pytest.raises(ValueError, match='is neither in a folder train nor in test'): speech.load_speech(tmp_path/'d')

def test_an_archive_that_cannot_be_fetched_says_what_to_do(tmp_path):
    known = Known((tmp_path/'none.zip').as_uri(), 'none.zip', 1, None, 'nobody')
    with pytest.raises(ValueError, match='put the archive by hand at .*none.zip'): fetched(known)

def test_the_archives_are_read(tmp_path):
    import tarfile, zipfile
    with zipfile.ZipFile(tmp_path/'a.zip', 'w') as z:
        for d in range(2):
            for take in range(7): z.writestr(f'x-master/recordings/{d}_ann_{take}.wav', wav(np.arange(500)*9))
        z.writestr('x-master/README.md', 'no sound')
    s = speech.read_archive(tmp_path/'a.zip')
    assert (s.name, int(s.test.sum()), int((~s.test).sum())) == ('spoken-digits', 10, 4)
    with tarfile.open(tmp_path/'a.tar.gz', 'w:gz') as t:
        for kind,word in (('pos', 'caf\xe9 fine'), ('neg', 'dull')):
            content = '\n'.join(f'{word} {i}' for i in range(10)).encode('cp1252')
            member = tarfile.TarInfo(f'rt-polaritydata/rt-polarity.{kind}')
            member.size = len(content)
            t.addfile(member, io.BytesIO(content))
    s = text.read_archive(tmp_path/'a.tar.gz')
    assert (s.names['label'], int(s.test.sum()), any('café' in text.words_of(p) for p in s.pieces)) == (('neg', 'pos'), 4, True)

# --- what is kept

def test_a_set_is_known_by_its_content(tmp_path):
    s = keep(speech.load_speech(digits(tmp_path/'d')))
    assert load_kept(s.id).id == s.id and load_kept(s.id).names == s.names
    (tmp_path/'d/0_ann_0.wav').write_bytes(wav(np.ones(3000)))
    assert speech.load_speech(tmp_path/'d').id != s.id
    kept_file(s.id).unlink()
    with pytest.raises(ValueError, match='was not used on this machine before'): load_kept(s.id)

def test_first_of_each_class_are_chosen():
    s = text.made_sentences()
    train, test = chosen(s, 10, 0)
    assert np.bincount(s.target[train]).tolist() == [5, 5] and not s.test[train].any() and s.test[test].all()

# --- known answers

def test_bands_take_the_inputs_apart():
    arrays, _ = speech.speech_arrays(speech.made_tones(), 0, 0, 16, 24)
    whole, parts = arrays.x_test, 0
    for band,metric,x in speech.MelBands().sets(arrays.x_train, arrays.y_train, whole):
        if metric == 'without_acc': parts = parts + (whole - x)
        else: assert ((x != 0).flatten(2).any(2).sum(1) == 6).all()
    torch.testing.assert_close(parts, whole)

def test_words_that_tell_are_found_in_training_sentences_alone():
    arrays, known = text.text_arrays(text.made_sentences(), 0, 0, 16, 20)
    telling = [i + text.FIRST for i,w in enumerate(known) if w in (*text.GOOD, *text.BAD)]
    told = text.opinion_words(arrays.x_train, arrays.y_train, 5).tolist()
    assert len(telling) == 8 and {*told} <= {*telling}
    sets = {(b, m): x for b,m,x in text.WordGroups(opinion=5).sets(arrays.x_train, arrays.y_train, arrays.x_test)}
    assert not torch.isin(sets['opinion', 'without_acc'], torch.tensor(told)).any()
    assert torch.isin(sets['opinion', 'only_acc'], torch.tensor([text.GAP, *told])).all()
    assert torch.equal(sets['shuffle=all', 'changed_acc'].sort().values, arrays.x_test.sort().values)

def test_a_local_shuffle_stays_local():
    x = torch.arange(2, 14)[None]
    moved = text.in_other_order(x, block=4)[0].view(3, 4)
    assert torch.equal(moved.sort().values, x.view(3, 4)) and not torch.equal(moved.flatten(), x[0])

@pytest.mark.parametrize('d, n', [(5, 200), (32, 600)])
def test_the_linear_probe_is_at_chance_on_shuffled_labels(d, n):
    g = torch.Generator().manual_seed(1)
    y, yt = torch.arange(n) % 5, torch.arange(n) % 5
    z, zt = (torch.randn(n, d, generator=g) + 3*torch.nn.functional.one_hot(v, d) for v in (y, yt))
    assert linear_accuracy(z, y, zt, yt) > 90
    mixed = [linear_accuracy(z, y[torch.randperm(n, generator=g)], zt, yt) for _ in range(20)]
    assert abs(np.mean(mixed) - 20) < 6
    assert np.isnan(linear_accuracy(z*float('nan'), y, zt, yt))

def test_networks_that_diverged_have_rows_without_values():
    context = example_tones()
    nets = context.checkpoints['pretrain'].copy()
    for v in nets.state.values(): v[1] = float('nan')
    from dataclasses import replace
    lost = replace(context, checkpoints=dict(pretrain=nets))
    for probe in (probe_groups, probe_further):
        rows = probe(lost)
        assert rows[rows.train_seed == 2].value.isna().all() and rows[rows.train_seed == 1].value.notna().any()

@pytest.mark.parametrize('spec, x', [(FramesSpec(width=2, length=8, mels=6), torch.zeros(8, 6, 8)),
                                     (TokensSpec(width=2, length=16, words=50, embedding=3), torch.randint(1, 50, (8, 16), generator=torch.Generator().manual_seed(0)))])
def test_all_that_is_trained_is_scale_invariant(spec, x):
    assert sorted(n for g in invariant_groups(spec.build(1), x) for n in g) == sorted(spec.trained_names())

# --- studies

@pytest.mark.parametrize('study', STUDY_IDS)
def test_smoke_runs_anywhere(study):
    trial = live(protocols(study, 'smoke')[0])
    assert trial.offers() == trial.context().offers()
    wanted = {'metrics', 'curves', 'geometry', 'norms', 'filters', 'groups'} | ({'further'} if study == 'speech' else set())
    assert set(trial.tables) == wanted
    assert {'n_eff', 'n_needed', 'dominance', 'only_acc', 'without_acc'} <= set(trial.tables['groups'].metric)
    assert trial.tables['metrics'].value.notna().any()

@pytest.mark.parametrize('study', STUDY_IDS)
def test_stopped_and_gone_on_is_the_same(study, tmp_path):
    p, = resolved(protocols(study, 'smoke', plrs=[1e-2]))
    whole = live(p, Run(tmp_path/'a', p))
    with pytest.raises(OutOfTime): live(p, Run(tmp_path/'b', p), time_limit=0.)
    again = live(p, Run(tmp_path/'b', p))
    for name in whole.tables: pd.testing.assert_frame_equal(whole.tables[name], again.tables[name])

def test_seeds_of_exploration_are_not_recorded():
    for study in STUDY_IDS:
        for preset in STUDIES[study].presets.values(): assert not {*range(901, 1000)} & {*preset.train_seeds}

# --- the real sets, where they lie beside the project

def beside(root, name):
    folder = root.parent/'shared'/'data'/name
    if not folder.exists(): pytest.skip(f"{name} is not beside the project")
    return folder

def test_spoken_digits(root):
    s = speech.load_speech(beside(root, 'spoken-digits'))
    assert (len(s.pieces), int(s.test.sum()), s.classes, len(s.names['speaker'])) == (3000, 600, 10, 6)
    assert np.median([len(p) for p in s.pieces]) == pytest.approx(3358, abs=30)

def test_movie_sentences(root):
    s = text.load_text(beside(root, 'movie-sentences'))
    assert (len(s.pieces), int(s.test.sum()), s.classes) == (10662, 2132, 2)
    arrays, known = text.text_arrays(s, 0, 0, 32, 2000)
    assert {'.', 'the', ','} == {*known[:3]}
    told = {known[i - text.FIRST] for i in text.opinion_words(arrays.x_train, arrays.y_train, 20).tolist()}
    assert {'bad', 'too', 'dull', 'and'} & told

# --- claims

def tables_of(bands, kept, speakers=False, seeds=3):
    "Tables of a made study with regimes 1, 2A, 2B and 3, whose networks lose `kept` points without the other bands in 2A"
    made = made_up()['metrics']
    groups, further = [], []
    rates = sorted(made.plr.unique())
    for i,plr in enumerate(rates):
        inside = 4 <= i <= 6
        for seed in range(1, seeds + 1):
            row = dict(run=f'{plr:g}', study='made', data='made', plr=plr, data_seed=np.nan, train_seed=seed, readout_seed=np.nan, stage='finetune', flr=1e-5,
                       swa_k=np.nan, pair=None, rank=np.nan)
            for b,band in enumerate(bands):
                lost = 30. if b == 0 or not inside else kept
                groups += [row | dict(band=band, metric='without_acc', value=75. - lost), row | dict(band=band, metric='only_acc', value=40. if inside else 20.)]
            needed = 1. if inside and not kept else float(len(bands))
            groups += [row | dict(band=None, metric=m, value=needed) for m in ('n_needed', 'n_eff')]
            for metric,band,value in (('only_acc', 'opinion', 66. if inside else 60.), ('without_acc', 'opinion', 55.), ('changed_acc', 'shuffle=all', 70.)):
                groups.append(row | dict(band=band, metric=metric, value=value))
            for metric,value in (('linear_acc', 40. if inside else 60.), ('shuffled_acc', 100/6)):
                further.append(row | dict(band='label=speaker', metric=metric, value=value))
    return dict(metrics=made, groups=pd.DataFrame(groups)) | (dict(further=pd.DataFrame(further)) if speakers else {})

@pytest.mark.parametrize('study, parts, bands', [('speech', (*C26, *C27), ('60-566Hz', '477-4000Hz')), ('text', (*C28, *C29), ('words=1of2', 'words=2of2'))])
def test_a_window_with_sparse_networks_is_found_and_one_without_is_not(study, parts, bands):
    def verdicts_of(kept): return {a.part.id.split('.')[1]: a.verdict for a in answers(parts, Evidence(tables_of(bands, kept, study == 'speech'), STUDIES[study]))}
    sparse, even = verdicts_of(0.), verdicts_of(30.)
    for name in ('window', 'gain', 'band', 'needed'): assert sparse[name] == REPRODUCED
    assert even['needed'] == NOT and even['window'] == REPRODUCED
    assert sparse['speaker' if study == 'speech' else 'opinion'] == REPRODUCED

@pytest.mark.parametrize('study, parts', [('speech', (*C26, *C27)), ('text', (*C28, *C29))])
def test_thresholds_are_those_that_were_written_down(root, study, parts):
    written = pd.read_csv(root/f'figures/data/{study}/thresholds.csv').set_index('id')
    assert sorted(p.id for p in parts) == sorted(written.index)
    for p in parts:
        row = written.loc[p.id]
        assert (p.label, p.comparison, p.threshold, p.decides) == (row.what, row.sense, float(row.threshold), row.decides)

def test_without_a_window_nothing_is_said():
    tables = tables_of(('60-566Hz', '477-4000Hz'), 0., True)
    few = {name: t[t.plr < 5e-5] for name,t in tables.items()}
    for a in answers((*C26, *C27), Evidence(few, STUDIES['speech'])):
        if a.part.id not in ('C27.shuffled',): assert np.isnan(a.found.value)
