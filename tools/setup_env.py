"""Make the project's environment `.venv`: refuse in one line before any work, install the pinned set, check the kernel.

Called by make with the Python that `.venv` shall have. uv installs the versions of constraints.txt, where it
is installed; else pip does. Standard library only, and in the syntax of Python 3.8, so that an older
Python can still say that it is too old. Exit code 2 means: refused, nothing was changed.
"""
import importlib.util, os, shutil, subprocess, sys, tempfile, time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST = (3, 11)
# GB (1e9 bytes) by the build of torch: free space for a new .venv with pip's cache, and for pip's temporary files
NEEDS = {'': (8, 3), 'cpu': (3, 1)}
EVERYTHING = '.[all,test]' # the extras of pyproject.toml that notebooks, sweeps and tests need
CPU_INDEX = 'https://download.pytorch.org/whl/cpu'  # PyTorch's own index of builds without CUDA
ANOTHER = 'or name another Python, as in: make PYTHON=python3.12 setup'

class Refused(Exception):
    "One line for the reader: what is wrong, what was found, what to do"

def check_python(version=None):
    "The Python that runs this is new enough"
    version = tuple(version or sys.version_info)
    if version[:2] < OLDEST:
        raise Refused("Python %s (%s) is too old, %d.%d or newer is needed: install one, %s" % (
            '.'.join(map(str, version[:3])), sys.executable, OLDEST[0], OLDEST[1], ANOTHER))

def check_venv(find=importlib.util.find_spec):
    "It can make a virtual environment with pip in it (Debian keeps that in a package of its own)"
    lost = [m for m in ('venv', 'ensurepip') if find(m) is None]
    if lost:
        raise Refused("Python %s (%s) has no module %s, so it cannot make .venv: install it (Debian, Ubuntu: "
            "apt install python3-venv), %s" % (sys.version.split()[0], sys.executable, ' and '.join(lost), ANOTHER))

def check_torch(torch):
    "TORCH names a build of torch that we know how to ask for"
    if torch not in NEEDS:
        raise Refused("TORCH=%s is not known: leave it out for the usual build, or say TORCH=cpu" % torch)

def check_disk(torch='', root=ROOT, usage=shutil.disk_usage):
    "Enough free space for what will be installed, unless torch is already there"
    if any((root/'.venv').glob('lib/python*/site-packages/torch/version.py')): return
    tmp = Path(tempfile.gettempdir())
    for place, gb, how in ((root, NEEDS[torch][0], 'free some, or clone the project onto a larger disk'),
                           (tmp, NEEDS[torch][1], 'free some, or let TMPDIR name a folder on a larger disk')):
        free = usage(str(place)).free/1e9
        if free < gb:
            small = '' if torch else ' (make TORCH=cpu setup needs %d GB)' % NEEDS['cpu'][place == tmp]
            raise Refused("%.1f GB free in %s, %d GB needed to install: %s%s" % (free, place, gb, how, small))

def prefix_of(python):
    "`sys.prefix` of an interpreter, None where it does not run"
    try: out = subprocess.run([str(python), '-c', 'import sys; print(sys.prefix)'], stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, universal_newlines=True)
    except OSError: return None
    return Path(out.stdout.strip()).resolve() if out.returncode == 0 else None

def check_old_venv(root=ROOT):
    "A `.venv` that is already there is this project's, runs, and is new enough"
    venv = root/'.venv'
    if not os.path.lexists(str(venv)): return
    python = venv/'bin'/'python'
    new = subprocess.call([str(python), '-c', 'import sys; sys.exit(sys.version_info < (%d, %d))' % OLDEST]) == 0 \
        if prefix_of(python) == venv.resolve() else False
    if not new:
        raise Refused("%s is no working environment of Python %d.%d or newer (moved, or its Python is gone?): "
            "delete it with `make clean`, then run this again" % ((venv,) + OLDEST))

def check_all(torch):
    "Everything that can be known before any work"
    check_python(); check_venv(); check_torch(torch); check_old_venv(); check_disk(torch)

def kernel_prefix(python):
    "`sys.prefix` of what Jupyter would start for the kernel `python3` when run by this Python"
    ask = "from jupyter_client.manager import KernelManager as K; print(K(kernel_name='python3').format_kernel_cmd()[0])"
    out = subprocess.run([str(python), '-c', ask], stdout=subprocess.PIPE, universal_newlines=True, check=True)
    return prefix_of(out.stdout.strip())

def find_uv(wanted):
    "The program uv; `None` where it is not installed, or where make was told UV=no"
    return None if wanted == 'no' else shutil.which(wanted or 'uv')

def installer(python, torch, uv):
    "The command that fills the environment of a Python: uv or pip, with the same pins"
    pinned = ['-c', 'constraints.txt', '-e', EVERYTHING]
    if uv: return [uv, 'pip', 'install', '--python', str(python)] + (['--torch-backend', 'cpu'] if torch == 'cpu' else []) + pinned
    pip = [str(python), '-m', 'pip', '--disable-pip-version-check', 'install'] + pinned
    return pip + (['--extra-index-url', CPU_INDEX] if torch == 'cpu' else [])

def install(venv, torch, uv):
    "Make the environment, fill it with the pinned set, give it its own kernel"
    import venv as maker
    python = venv/'bin'/'python'
    if not python.exists(): maker.create(str(venv), with_pip=True)
    kernel = [str(python), '-m', 'ipykernel', 'install', '--sys-prefix', '--name', 'python3']
    log = venv/'setup.log'
    with log.open('w') as out:
        for step in (installer(python, torch, uv), kernel):
            if subprocess.call(step, cwd=str(ROOT), stdout=out, stderr=subprocess.STDOUT):
                tail = log.read_text(errors='replace').splitlines()[-15:]
                sys.exit('\n'.join(tail + ['setup: failed, the lines above end %s; mend it and run make again' % log]))
    if kernel_prefix(python) != venv.resolve():
        sys.exit("setup: the kernel python3 is %s and not %s: is JUPYTER_PATH set? Unset it and run make again" % (
            kernel_prefix(python), venv))

def main(torch, wanted=''):
    "Check, install, say how long it took"
    try: check_all(torch)
    except Refused as e:
        print('setup: %s' % e, file=sys.stderr)
        return 2
    start, uv = time.time(), find_uv(wanted)
    print('setup: installing into .venv, a few minutes the first time (%s writes to .venv/setup.log)' % ('uv' if uv else 'pip'),
          flush=True)
    install(ROOT/'.venv', torch, uv)
    print('setup: .venv is ready after %.0f s' % (time.time() - start), flush=True)
    return 0

if __name__ == '__main__': sys.exit(main(os.environ.get('TORCH', ''), os.environ.get('UV', '')))
