"""A few random kills, then the sweep called again: tables are the bytes of an undisturbed sweep, nothing is left over or done twice."""
import sys
from pathlib import Path
sys.path.insert(0, str(Path(__file__).parent))
from conftest import patience
from faults import Campaign, Shelf

def test_six_kills():
    counts, wrong = Campaign(seed=3, runs=3, kinds=dict(kernel=1, parent=1, all=1), say=lambda *_, **__: None).run(6)
    assert not wrong and counts['kills'] >= 6 and counts['wrong'] == 0, (counts, wrong)

def test_the_questions_can_fail():
    "A changed table, a file left over and a run done twice are each named"
    campaign = Campaign(seed=0, runs=1, kinds={})
    root = campaign.home/'x'
    assert campaign.call(root).wait(patience(60)) == 0
    reference = campaign.ask(root, None, {})
    assert not campaign.wrong
    run, = (root/'tiny').iterdir()
    (run/'curves.csv').write_bytes((run/'curves.csv').read_bytes().replace(b'3', b'4'))
    (run/'.tmp-x').touch()
    campaign.ask(root, reference, {run.name: 1})
    text = ' '.join(campaign.wrong)
    assert all(w in text for w in ('differ', 'left over: .tmp-x', 'was done twice', 'not all runs are done'))
    (campaign.home/'journal').write_text('a 1 0 10.0\na 1 1 30.0\na 2 1 20.0\n')
    assert campaign.overlaps() == 1

def test_kills_of_what_is_done_with_finished_runs():
    counts, wrong = Shelf(seed=4, kinds=('tables', 'add', 'pack', 'unpack')).run(12)
    assert not wrong and counts['kills'] >= 12, (counts, wrong)

def test_the_questions_about_the_shelf_can_fail(monkeypatch):
    "A note that is lost, a temporary that stays and another end are each named"
    shelf = Shelf(seed=0, kinds=('pack',))
    def bad(kind, folder, **_):
        (folder/'mine.txt').unlink(missing_ok=True)
        (folder/'.tmp-a').touch()
        return 0
    monkeypatch.setattr(shelf, 'call', bad)
    shelf.strike('pack')
    text = ' '.join(shelf.wrong)
    assert all(w in text for w in ("lost right after", "left over", "['.tmp-a']", 'not the end of an undisturbed call')), text
