"""Tables of many runs are copied row by row: the bytes are those of the slow way; a quick look counts runs without reading them."""
import dataclasses, io
import numpy as np, pandas as pd, pytest
from understanding_lrs.runs import ledger, published, tables
from understanding_lrs.app.cli import main
from understanding_lrs.runs.find import glance, networks_in
from understanding_lrs.runs.ledger import load
from understanding_lrs.runs.protocol import Protocol, networks
from understanding_lrs.runs.published import publish
from understanding_lrs.runs.store import Run
from understanding_lrs.runs.tables import read_table, table_bytes, to_parquet

P = Protocol('tiny', .1, data_seeds=[1, 2], train_seeds=[1], settings=dict(steps=3))

def made(root, plr, tables, data_seeds=(1, 2)):
    p = dataclasses.replace(P, plr=plr, data_seeds=data_seeds)
    run = Run(root, p).start()
    for name, df in tables(p).items(): run.write_table(name, df)
    run.finish(dict(seconds=1.))
    return run

def some(p, **more):
    rng = np.random.default_rng(int(p.plr*1000))
    fixed = dict(run=p.short, plr=p.plr, train_seed=1, rank=None, stage='pretrain', metric='test_acc') | more
    return pd.DataFrame([fixed | dict(data_seed=d, flr=f, value=v) for d in p.data_seeds for f in (None, 3.162e-5)
                         for v in (*rng.normal(size=20), np.nan, -0.)])

CASES = dict(
    alike=lambda p: dict(metrics=some(p), curves=some(p).drop(columns='plr')),
    empty=lambda p: dict(metrics=some(p), geometry=some(p).iloc[:0] if p.plr < .2 else some(p)),
    all_empty=lambda p: dict(metrics=some(p), geometry=some(p).iloc[:0]),
    other_columns=lambda p: dict(metrics=some(p) if p.plr < .2 else some(p, band='low')),
    unknown_column=lambda p: dict(metrics=some(p, thing=1 if p.plr < .2 else 1.5)),
    quoted=lambda p: dict(metrics=some(p, band='a, "b"\nc')))

@pytest.mark.parametrize('large', [1_000_000, 100])
@pytest.mark.parametrize('case', CASES)
def test_copied_rows_are_those_of_the_slow_way(tmp_path, monkeypatch, case, large):
    monkeypatch.setattr(tables, 'LARGE', large)
    found = [made(tmp_path/'runs', plr, CASES[case]) for plr in (.1, .2, .3)] + [made(tmp_path/'runs', .3, CASES[case], (2, 3))]
    for wanted in (None, [dataclasses.replace(P, plr=.3, data_seeds=(2, 3))]):
        fast, slow = tmp_path/f'fast{bool(wanted)}', tmp_path/f'slow{bool(wanted)}'
        publish(found, fast, wanted)
        quick = load(found, 'metrics', wanted)
        with monkeypatch.context() as m:
            for module in (ledger, published): m.setattr(module, 'copy_rows', lambda parts, files: dict.fromkeys(files))
            publish(found, slow, wanted)
            pd.testing.assert_frame_equal(quick, load(found, 'metrics', wanted))
        assert {f.name: f.read_bytes() for f in fast.iterdir()} == {f.name: f.read_bytes() for f in slow.iterdir()}

def test_parquet_in_parts_is_that_of_pandas(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, 'GROUP', 1000)
    df = pd.concat([some(dataclasses.replace(P, plr=plr/100)) for plr in range(1, 60)])
    (tmp_path/'a.csv').write_bytes(data := table_bytes(df))
    to_parquet(tmp_path/'a.csv', tmp_path/'a.parquet')
    whole = io.BytesIO()
    read_table(data).to_parquet(whole, index=False, compression='zstd', row_group_size=1000)
    assert len(df) > 5000 and (tmp_path/'a.parquet').read_bytes() == whole.getvalue()

def test_a_glance_reads_no_table(tmp_path, capsys):
    good, cut, flipped = (made(tmp_path, plr, CASES['alike']) for plr in (.1, .2, .3))
    data = (cut/'metrics.csv').read_bytes()
    (cut/'metrics.csv').write_bytes(data[:-1])
    data = (flipped/'metrics.csv').read_bytes()
    (flipped/'metrics.csv').write_bytes(data.replace(b'pretrain', b'Pretrain', 1))
    assert [glance(r.folder) for r in (good, cut, flipped)] == [True, False, True]
    main(['status', '--runs', str(tmp_path)])
    assert '2 done, 0 partial, 1 damaged; 4 networks' in (out := capsys.readouterr().out) and 'metrics.csv has' in out
    main(['status', '--deep', '--runs', str(tmp_path)])
    assert '1 done, 0 partial, 2 damaged; 2 networks' in (out := capsys.readouterr().out) and 'has changed' in out

@pytest.mark.parametrize('seeds', [dict(), dict(data_seeds=(7,)), dict(train_seeds=range(3), readout_seeds=(1, 3, 4, 9)),
                                   dict(data_seeds=range(0, 90, 2), train_seeds=range(1, 11))])
def test_the_number_of_networks_is_in_the_name(seeds):
    p = dataclasses.replace(P, **seeds)
    assert networks_in(p.name) == len(networks(p))
