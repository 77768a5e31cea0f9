"""Kernels are forks of a process that has imported large packages: as many threads, the same programs, and none is left behind."""
import os, signal, subprocess, sys
from pathlib import Path

import psutil, pytest
from conftest import patience, until

from understanding_lrs.core import fork_server
from understanding_lrs.core.fork_server import CAN_FORK, ForkServer
from understanding_lrs.sweep import kernels
from understanding_lrs.sweep.kernels import IMPORTED, kernel_env, server_for

pytestmark = pytest.mark.skipif(not CAN_FORK, reason='kernels are forked on Linux only')

@pytest.fixture
def server():
    made = ForkServer(('json', 'no_such_module_at_all', 'numpy'), os.environ)
    yield made
    made.close()

def gone(process):
    try: return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess: return True

def told(server, folder, program, *args, **env):
    "What a program prints"
    (folder/'program.py').write_text(program)
    with open(folder/'log', 'wb') as log: child = server.start('program', list(args), folder, dict(os.environ, **env), log)
    child.wait(patience(30))
    return (folder/'log').read_text().strip()

def test_a_program_has_its_arguments_folder_and_environment(server, tmp_path):
    said = told(server, tmp_path, "import os, sys; print(sys.argv[1:], os.getcwd(), os.environ['COLOUR'], __name__)", 'a', 'b c', COLOUR='red')
    assert said == f"['a', 'b c'] {tmp_path} red __main__"

def test_a_name_that_is_gone_is_gone(tmp_path, monkeypatch):
    monkeypatch.setenv('COLOUR', 'red')
    made = ForkServer((), os.environ)
    monkeypatch.delenv('COLOUR')
    assert told(made, tmp_path, "import os; print(os.environ.get('COLOUR'))") == 'None'
    made.close()

def test_what_it_prints_and_how_it_fails_is_in_the_log(server, tmp_path):
    said = told(server, tmp_path, "import sys; print('one'); print('two', file=sys.stderr); raise ValueError('three')")
    assert 'one' in said and 'two' in said and said.endswith('ValueError: three')

def test_packages_of_others_are_there_and_this_one_is_read_anew(server, tmp_path):
    assert told(server, tmp_path, "import sys; print('numpy' in sys.modules, 'understanding_lrs' in sys.modules)") == 'True False'

def test_two_programs_do_not_draw_the_same_numbers(server, tmp_path):
    assert len({told(server, tmp_path, 'import numpy; print(numpy.random.rand())') for _ in range(2)}) == 2

def test_the_server_of_kernels_has_one_thread_before_it_forks(tmp_path):
    server = server_for(kernel_env(1))
    assert told(server, tmp_path, 'print(1)') == '1' # so its imports are over
    threads = Path(f'/proc/{server.process.pid}/task').glob('*/comm')
    names = sorted(file.read_text().strip() for file in threads)
    assert [name for name in names if name != 'jemalloc_bg_thd'] == ['python'] # jemalloc holds its own still while a process forks

def test_a_whole_group_can_be_ended_as_soon_as_it_has_a_number(server, tmp_path):
    (tmp_path/'program.py').write_text("import subprocess, time; subprocess.Popen(['sleep', '60']); time.sleep(60)")
    with open(tmp_path/'log', 'wb') as log: child = server.start('program', [], tmp_path, os.environ, log)
    mine = psutil.Process(child.pid)
    assert os.getpgid(child.pid) == child.pid and child.poll() is None
    below = until(mine.children)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait(patience(10))
    assert below and child.poll() == 0
    until(lambda: all(map(gone, below)))

def test_the_server_ends_with_whoever_asked(tmp_path):
    program = "import os, sys; from understanding_lrs.core.fork_server import ForkServer; s = ForkServer((), os.environ); print(s.process.pid, flush=True); sys.stdin.read()"
    asking = subprocess.Popen([sys.executable, '-c', program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    pid = int(asking.stdout.readline())
    asking.kill()
    asking.wait()
    until(lambda: not psutil.pid_exists(pid))

def test_a_server_that_does_not_answer_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(fork_server, 'ANSWER', .2)
    server = ForkServer((), os.environ)
    os.kill(server.process.pid, signal.SIGSTOP)
    with open(tmp_path/'log', 'wb') as log: assert server.start('program', [], tmp_path, os.environ, log) is None
    server.process.wait(patience(10))

def test_without_its_server_a_kernel_is_started_as_always(tmp_path, monkeypatch):
    monkeypatch.setattr(kernels, '_servers', {})
    server = server_for(kernel_env(1))
    server.process.kill()
    with open(tmp_path/'log', 'wb') as log: assert server.start('program', [], tmp_path, os.environ, log) is None
    server.process.wait()
    assert server_for(kernel_env(1)) is not server # the next kernel has a new one
    server_for(kernel_env(1)).close()

@pytest.mark.parametrize('env', [dict(PYTHONPATH='elsewhere'), dict(OMP_NUM_THREADS='3'), dict(CUDA_VISIBLE_DEVICES='0')])
def test_kernels_that_begin_otherwise_do_not_share_a_server(env, monkeypatch):
    made = []
    monkeypatch.setattr(kernels, '_servers', {})
    monkeypatch.setattr(kernels, 'ForkServer', lambda modules, env: made.append(env) or type('Server', (), dict(process=type('P', (), dict(poll=lambda: None)))))
    servers = server_for(kernel_env(1)), server_for(kernel_env(1) | dict(ULRS_ANYTHING='1')), server_for(kernel_env(1) | env)
    assert servers[0] is servers[1] and servers[2] is not servers[0]
    assert len(made) == (1 if 'CUDA_VISIBLE_DEVICES' in env else 2) and 'torch' in IMPORTED

def test_elsewhere_nothing_is_forked(monkeypatch):
    monkeypatch.setattr(kernels, 'CAN_FORK', False)
    assert server_for(kernel_env(1)) is None
