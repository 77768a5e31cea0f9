"""What waits for a GPU is one call: it says its plan anywhere, is refused in one line without a GPU, and takes in what a session brought."""
import importlib.util, subprocess, sys
import pytest, torch
from understanding_lrs.app import gpu_measure, gpu_plan

@pytest.fixture
def tool(root):
    spec = importlib.util.spec_from_file_location('gpu_tool', root/'tools/gpu.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

def test_the_plan_is_printed_without_a_gpu(tool, capsys):
    tool.main(['--plan'])
    out = capsys.readouterr().out
    assert out.startswith(' 0:00- 0:05  look') and '4 PLRs pre-train together' in out and out.count('if not') == out.count('brings') >= 9
    tool.main(['--plan', '--per-epoch', '.3'])
    assert capsys.readouterr().out.count('pre-train together') > out.count('pre-train together')

@pytest.mark.parametrize('words, said', [(('--seconds', '0'), 'must be above 0'), (('--minutes', '-1'), 'must be above 0'), (('--plan', '--ahead'), 'not allowed with'),
                                         (('--seconds', 'many'), 'invalid float')])
def test_senseless_words_are_refused(tool, words, said, capsys):
    with pytest.raises(SystemExit) as e: tool.main([*words])
    assert e.value.code == 2 and said in capsys.readouterr().err

@pytest.mark.parametrize('words', [(), ('--ahead',), ('--measure',)])
def test_without_a_gpu_it_says_so(tool, monkeypatch, words):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(SystemExit, match='finds no GPU here'): tool.main([*words])

def test_a_missing_package_is_one_line(tool, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(tool.importlib.util, 'find_spec', lambda m: None if m in ('pyarrow', 'safetensors') else real(m))
    with pytest.raises(SystemExit, match='^pyarrow, safetensors is not installed; make setup'): tool.main(['--plan'])

def test_pictures_are_split(tool, tmp_path, capsys):
    (tmp_path/'shapes').mkdir()
    (tmp_path/'shapes/train.parquet').write_bytes(b'x'*100)
    tool.main(['--split', str(tmp_path/'shapes'), '--work', str(tmp_path/'work')])
    assert capsys.readouterr().out.strip() == str(tmp_path/'work/parts/shapes-1of1')
    with pytest.raises(SystemExit, match='no folder'): tool.main(['--split', str(tmp_path/'nowhere'), '--work', str(tmp_path/'work')])

def test_a_rehearsal_and_what_it_brings(tool, tmp_path, monkeypatch, capsys):
    "on any machine, with a clock that a test holds"
    monkeypatch.setattr(gpu_measure, 'timed_steps', lambda *a: (.5, 'graph'))
    monkeypatch.setattr(gpu_plan, 'Clock', lambda seconds: gpu_plan.SimulatedClock(50, dict(epoch=.5, probes=1., measure=20., images=5., check=5.)))
    places = ['--work', str(tmp_path/'work'), '--runs', str(tmp_path/'runs'), '--tables', str(tmp_path/'tables')]
    tool.main(['--rehearse', *places])
    tool.main(['--home', str(tmp_path/'work/rehearsal/home'), *places])
    assert capsys.readouterr().out.splitlines()[-1] == 'resnet18si_cifar10/short: 2 runs'
    with pytest.raises(SystemExit, match='no log of a GPU session'): tool.main(['--home', str(tmp_path), *places])

def test_a_session_that_is_asked_to_end_goes_home(tool, monkeypatch):
    "and one that hangs ends by itself"
    import signal
    kept = signal.getsignal(signal.SIGTERM)
    timers = []
    class Timer:
        def __init__(self, seconds, f, args): timers.append((seconds, f, args))
        def start(self): pass
    monkeypatch.setattr(tool.threading, 'Timer', Timer)
    try:
        tool.in_time(600)
        with pytest.raises(SystemExit): signal.raise_signal(signal.SIGTERM)
    finally: signal.signal(signal.SIGTERM, kept)
    assert timers == [(600, tool.os._exit, [3])]

def test_ahead_is_another_process(tool, tmp_path, monkeypatch, capsys):
    "that the session stops when it begins"
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    real = subprocess.Popen
    monkeypatch.setattr(tool.subprocess, 'Popen', lambda words, **kw: real([sys.executable, '-c', 'import time; time.sleep(600)'], **kw))
    tool.main(['--ahead', '--work', str(tmp_path)])
    pid = int((tmp_path/'ahead.pid').read_text())
    assert str(pid) in capsys.readouterr().out
    tool.stop_ahead(type('A', (), dict(work=tmp_path)))
    import os
    assert os.waitpid(pid, 0)[0] == pid and not (tmp_path/'ahead.pid').exists()
