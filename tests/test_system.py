"""What a process may use and where it may write is asked of the system it runs on, whatever that is: containers, no home, no locks."""
import os, shutil, subprocess, sys, tempfile, time
from pathlib import Path
import pytest
from understanding_lrs.core import system
from understanding_lrs.core.errors import InputError
from understanding_lrs.runs.protocol import Protocol
from understanding_lrs.runs.store import Run
from understanding_lrs.sweep.checks import check_root
from understanding_lrs.sweep.kernels import kernel_env
from understanding_lrs.sweep.stop import Stop

ROOT_ONLY = pytest.mark.skipif(not hasattr(os, 'geteuid') or os.geteuid() != 0, reason='needs root to become another user')

def python(code, env=None, **kw):
    "Code in a process of its own: exit code, output, errors"
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env=env, **kw)
    return done.returncode, done.stdout.strip(), done.stderr

# --- cores and memory

def groups(tmp_path, own, files):
    "A made-up tree of control groups"
    for name, text in files.items():
        (tmp_path/'cgroup'/name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path/'cgroup'/name).write_text(text)
    (tmp_path/'own').write_text(own)
    return tmp_path/'cgroup', tmp_path/'own'

QUOTAS = {
    'version 2':            ('0::/\n', {'cpu.max': '150000 100000\n'}, 1.5),
    'version 2, above':     ('0::/a/b\n', {'a/b/cpu.max': 'max 100000\n', 'a/cpu.max': '300000 100000\n'}, 3.),
    'version 2, both':      ('0::/a/b\n', {'a/b/cpu.max': '200000 100000\n', 'a/cpu.max': '100000 100000\n'}, 1.),
    'version 2, none':      ('0::/a\n', {'a/cpu.max': 'max 100000\n'}, float('inf')),
    'version 1':            ('4:cpu,cpuacct:/d/x\n', {'cpu,cpuacct/d/x/cpu.cfs_quota_us': '250000\n', 'cpu,cpuacct/d/x/cpu.cfs_period_us': '100000\n'}, 2.5),
    'version 1, inside':    ('4:cpu,cpuacct:/docker/x\n', {'cpu,cpuacct/cpu.cfs_quota_us': '400000\n', 'cpu,cpuacct/cpu.cfs_period_us': '100000\n'}, 4.),
    'version 1, none':      ('1:cpu:/\n', {'cpu/cpu.cfs_quota_us': '-1\n', 'cpu/cpu.cfs_period_us': '100000\n'}, float('inf')),
    'of another controller': ('1:memory:/\n', {'memory/cpu.max': '100000 100000\n'}, float('inf')),
    'nonsense':             ('0::/\n', {'cpu.max': 'lots\n'}, float('inf')),
    'no groups':            ('', {}, float('inf')),
}

@pytest.mark.parametrize('case', QUOTAS)
def test_the_quota_of_a_container(tmp_path, case):
    own, files, want = QUOTAS[case]
    assert system.cpu_quota(*groups(tmp_path, own, files)) == want

@pytest.mark.parametrize('quota, want', [(.3, 1), (1., 1), (2.7, 2), (float('inf'), 64)])
def test_cores_are_those_of_the_quota(monkeypatch, quota, want):
    monkeypatch.setattr(system, 'cpu_quota', lambda: quota)
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: set(range(64)), raising=False)
    assert system.cpus() == want

def test_a_sweep_has_no_more_workers_than_cores(monkeypatch):
    from understanding_lrs.sweep import executors
    monkeypatch.setattr(executors, 'cpus', lambda: 3)
    assert len(executors.slots()) == 3

@pytest.mark.parametrize('own, files', [('0::/\n', {'memory.max': '2000\n'}), ('9:memory:/x\n', {'memory/x/memory.limit_in_bytes': '2000\n'})])
def test_the_memory_of_a_container(tmp_path, own, files): assert system.memory_limit(*groups(tmp_path, own, files)) == 2000

# --- folders

def test_the_cache_is_absolute_everywhere(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('ULRS_CACHE', 'here')
    monkeypatch.setenv('ULRS_DATA', 'there')
    env = kernel_env(1)
    assert (env['ULRS_CACHE'], env['ULRS_DATA']) == (str(tmp_path/'here'), str(tmp_path/'there'))
    monkeypatch.setenv('HOME', str(tmp_path/'home'))
    monkeypatch.setenv('ULRS_CACHE', '~/c')
    assert kernel_env(1)['ULRS_CACHE'] == str(tmp_path/'home'/'c') == str(system.cache_folder())

def test_a_tilde_is_the_home(monkeypatch, tmp_path):
    monkeypatch.setenv('HOME', str(tmp_path/'home'))
    monkeypatch.chdir(tmp_path)
    assert check_root('~/x') == tmp_path/'home'/'x' and not (tmp_path/'~').exists()
    with pytest.raises(InputError, match='full path'): check_root('~nobody-of-this-name/x')

def test_a_folder_that_notebooks_cannot_name_is_refused(tmp_path):
    with pytest.raises(InputError, match='not UTF-8'): check_root(os.fsdecode(os.fsencode(tmp_path) + b'/caf\xe9'))

@pytest.fixture
def open_folder():
    "A folder that every user may enter, as pytest's own may not"
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)

@ROOT_ONLY
@pytest.mark.parametrize('home', ['none', 'not writable', 'not there'])
def test_without_a_home_a_private_folder_takes_its_place(open_folder, home):
    "As the user of a container who is in no list of users"
    (spare := open_folder/'tmp').mkdir()
    spare.chmod(0o1777)
    (open_folder/'home').mkdir(mode=0o555)
    env = dict(PATH=os.environ['PATH'], TMPDIR=str(spare), PYTHONDONTWRITEBYTECODE='1')
    if home != 'none': env['HOME'] = str(open_folder/'home' if home == 'not writable' else '/nowhere')
    code = ("from understanding_lrs.core.system import cache_folder; f = cache_folder(); f.mkdir(parents=True, exist_ok=True)\n"
            "(f/'x').write_text('1'); print(f, cache_folder() == f)")
    rc, out, err = python(code, env, user=54321, group=54321, extra_groups=[], cwd=spare)
    assert rc == 0, err
    assert out.startswith(f'{spare}/understanding_lrs-54321') and out.endswith(' True')
    assert (spare/'understanding_lrs-54321').stat().st_mode & 0o777 == 0o700

@ROOT_ONLY
def test_a_spare_folder_that_somebody_else_made_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(system.tempfile, 'gettempdir', lambda: str(tmp_path))
    (planted := tmp_path/f'understanding_lrs-{os.getuid()}').mkdir(mode=0o700)
    os.chown(planted, 54321, 54321)
    with pytest.raises(ValueError, match='ULRS_CACHE'): system.spare_folder()

def test_a_cache_in_a_home_that_is_not_there_is_refused_before_any_work(monkeypatch, tmp_path, capsys):
    from understanding_lrs.app.cli import main
    monkeypatch.setenv('ULRS_CACHE', '~nobody-of-this-name/cache')
    assert main(['sweep', 'synthetic', '--preset', 'smoke', '--runs', str(tmp_path/'runs')]) == 2
    assert 'ULRS_CACHE is ~nobody-of-this-name/cache' in capsys.readouterr().err

@pytest.mark.parametrize('name', ['s3://bucket/runs', 'gs:/x', 'file:///tmp/x'])
def test_an_address_is_no_folder(monkeypatch, tmp_path, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match='not at an address'): check_root(name)
    assert not list(tmp_path.iterdir())

def test_a_file_system_without_hard_links_is_refused_before_any_work(monkeypatch, tmp_path):
    def no(*args): raise OSError(1, 'Operation not permitted')
    monkeypatch.setattr(os, 'link', no)
    with pytest.raises(InputError, match='no hard links'): check_root(tmp_path/'runs')
    monkeypatch.undo()
    assert check_root(tmp_path/'runs') and not list((tmp_path/'runs').iterdir())

def test_a_file_system_that_cannot_sync_folders_will_do(monkeypatch, tmp_path):
    from understanding_lrs.core.files import atomic_write
    plain = os.fsync
    def picky(fd):
        if os.path.isdir(f'/proc/self/fd/{fd}'): raise OSError(22, 'Invalid argument')
        plain(fd)
    monkeypatch.setattr(os, 'fsync', picky)
    atomic_write(tmp_path/'a', b'x')
    assert (tmp_path/'a').read_bytes() == b'x'

def test_a_terminal_without_our_letters(tmp_path):
    env = os.environ | dict(PYTHONIOENCODING='ascii')
    for words in (['studies'], ['status', '--runs', os.fsdecode(os.fsencode(tmp_path) + b'/caf\xe9')]):
        rc, out, err = python(f"import sys\nfrom understanding_lrs.app.cli import main\nsys.exit(main({words!r}))", env)
        assert rc == 0 and out and not err, err

def test_a_picture_that_cannot_be_written_is_refused_before_any_work(tmp_path, capsys):
    from understanding_lrs.app.cli import main
    assert main(['bands', 'no.safetensors', '--data', 'digits', '--out', str(tmp_path/'nowhere'/'x.svg')]) == 2
    assert 'cannot write into the folder' in capsys.readouterr().err

# --- what never ends

def test_only_plain_files_are_read(tmp_path):
    os.mkfifo(tmp_path/'pipe')
    (tmp_path/'zero').symlink_to('/dev/zero')
    for name in ('pipe', 'zero', '.'):
        with pytest.raises(OSError): system.read_plain(tmp_path/name)
    (tmp_path/'file').write_bytes(b'abc')
    (tmp_path/'link').symlink_to('file')
    assert system.read_plain(tmp_path/'link') == b'abc'

# --- without the locks of POSIX

BLIND = "import sys\nfor n in ('fcntl', 'resource', 'pwd'): sys.modules[n] = None\n"

@pytest.mark.parametrize('words', ['studies', 'status --runs {}', 'show plr=1.000e-01_d1_t1_1343c5c4 --runs {}', 'claims C13 --json'])
def test_reading_commands_work_without_fcntl(tmp_path, words):
    run = Run(tmp_path, Protocol('tiny', .1, data_seeds=[1], train_seeds=[1])).start()
    with run.lock(): pass
    code = BLIND + f"from understanding_lrs.app.cli import main\nsys.exit(main({words.format(tmp_path).split()!r}))"
    rc, out, err = python(code)
    assert 'Traceback' not in err and 'fcntl' not in err and out, err

@pytest.mark.parametrize('words', ['sweep synthetic --preset smoke --runs {}', 'unpack {}/a.tar --runs {}', 'pack {}/b.tar --runs {}'])
def test_what_needs_fcntl_says_so_in_one_line(tmp_path, words):
    Run(tmp_path, Protocol('tiny', .1, data_seeds=[1], train_seeds=[1])).start()
    (tmp_path/'a.tar').write_bytes(b'x')
    code = BLIND + f"from understanding_lrs.app.cli import main\nsys.exit(main({words.replace('{}', str(tmp_path)).split()!r}))"
    rc, out, err = python(code)
    assert rc == 2 and 'fcntl' in err and len(err.strip().splitlines()) == 1, err

# --- the end of a process

@pytest.mark.parametrize('name', ['SIGTERM', 'SIGHUP', 'SIGINT'])
def test_every_signal_to_end_lets_runs_save(tmp_path, name):
    import signal
    stop = Stop(tmp_path, None)
    with stop.listening():
        os.kill(os.getpid(), getattr(signal, name))
        time.sleep(.05)
        assert stop.why == 'stopped' and stop.flag.exists()
    assert not stop.flag.exists()

def test_a_hang_up_that_is_ignored_stays_so(tmp_path):
    "as under nohup"
    import signal
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with (stop := Stop(tmp_path, None)).listening():
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.why
    finally: signal.signal(signal.SIGHUP, before)
