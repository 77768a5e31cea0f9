"""Run a selection of tests at the lowest versions that pyproject.toml allows, in an environment of its own: `.lowest`.

uv resolves the direct dependencies to their lowest versions, the others to their newest. torch and torchvision are taken
without CUDA. `--torch-from FOLDER` links those of another environment's site-packages instead: they are large, and what
is asked here is mostly about the others. Needs uv.
"""
import argparse, shutil, subprocess, sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLACE = ROOT/'.lowest'
TORCH = ('torch', 'torchvision', 'triton', 'nvidia-', 'cuda-') # how the names of large packages begin
LINKED = ('torch', 'torch-*', 'torchgen', 'functorch', 'torchvision*', 'triton*', 'nvidia*', 'cuda_*')
TESTS = ('cli', 'start', 'rows', 'files', 'protocol', 'synthetic', 'regimes', 'claims', 'shapes', 'images')

def run(*words):
    "A command; its failure is ours"
    done = subprocess.run([str(w) for w in words], cwd=str(ROOT))
    if done.returncode: sys.exit(done.returncode)

def pinned(backend):
    "The lowest versions, as lines of a requirements file"
    words = ['uv', 'pip', 'compile', '-q', 'pyproject.toml', '--extra', 'all', '--extra', 'test',
             '--resolution', 'lowest-direct', '--no-annotate', '--no-header'] + backend
    done = subprocess.run(words, cwd=str(ROOT), stdout=subprocess.PIPE, universal_newlines=True)
    if done.returncode: sys.exit(done.returncode)
    return [line for line in done.stdout.splitlines() if line.strip()]

def link_torch(folder, site):
    "Links to torch and what it needs, as another environment has it"
    for pattern in LINKED:
        for found in Path(folder).resolve().glob(pattern):
            if not (site/found.name).exists(): (site/found.name).symlink_to(found)

def main():
    "Resolve, install, test"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--torch-from', metavar='FOLDER', help='site-packages of an environment whose torch is linked')
    parser.add_argument('tests', nargs='*', help='names of tests, such as cli; default: ' + ' '.join(TESTS))
    asked = parser.parse_args()
    if not shutil.which('uv'): sys.exit('lowest: uv is not installed: see https://docs.astral.sh/uv')
    backend = [] if asked.torch_from else ['--torch-backend', 'cpu']
    lines = pinned(backend)
    if asked.torch_from: lines = [line for line in lines if not line.startswith(TORCH)]
    python = PLACE/'bin/python'
    if not python.exists(): run('uv', 'venv', '-q', '-p', sys.executable, PLACE)
    wanted = PLACE/'lowest.txt'
    wanted.write_text('\n'.join(lines) + '\n')
    run('uv', 'pip', 'sync', '-q', '-p', python, *backend, wanted)
    if asked.torch_from: link_torch(asked.torch_from, next(PLACE.glob('lib/python*/site-packages')))
    run('uv', 'pip', 'install', '-q', '-p', python, '--no-deps', '-e', '.')
    run(python, '-m', 'ipykernel', 'install', '--sys-prefix', '--name', 'python3')
    run(python, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', *['tests/test_%s.py' % t for t in asked.tests or TESTS])

if __name__ == '__main__': main()
