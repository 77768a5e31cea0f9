"""Changed files are read as they were or refused in one line: a small part of `make fuzz`; and the campaign sees what it looks for."""
import pytest
pytest.importorskip('PIL.Image'), pytest.importorskip('pyarrow.parquet')
import fuzz

def test_every_loader_survives_a_few_changed_files(monkeypatch):
    counts = fuzz.campaign(len(fuzz.KINDS)*6, seed=1, say=lambda *args, **kw: None)
    assert counts.pop('faults') == [] and set(counts) == set(fuzz.KINDS)
    assert sum(c['refused'] for c in counts.values()) > 40

class Careless(fuzz.Kind):
    "A loader that trusts what it reads"
    def make(self, folder): (folder/'a.txt').write_text('7')
    def read(self, folder):
        while (text := (folder/'a.txt').read_text(errors='replace'))[:1] == 'x': pass # hangs
        return str(int(text))

@pytest.mark.parametrize('text, what', [('8', 'a different value, silently'), ('7', 'same'), ('no', 'unclear'), ('x', 'too long')])
def test_the_campaign_can_fail(tmp_path, monkeypatch, text, what):
    monkeypatch.setattr(fuzz, 'LIMIT', 1.)
    (tmp_path/'case').mkdir()
    (tmp_path/'case'/'a.txt').write_text(text)
    assert fuzz.outcome(Careless(), tmp_path/'case', '7').startswith(what)

def test_a_process_that_dies_is_a_fault(monkeypatch):
    class Dying(Careless):
        def read(self, folder):
            if (folder/'a.txt').read_text(errors='replace') == '7': return '7'
            fuzz.os.kill(fuzz.os.getpid(), 9)
    monkeypatch.setitem(fuzz.KINDS, 'dying', Dying)
    faults = fuzz.campaign(3, kinds=('dying',), say=lambda *args, **kw: None)['faults']
    assert faults and all('the process died with -9' in f for f in faults)
