"""Build the page and the widget of play/: C to WebAssembly with zig, JavaScript to one file with esbuild.

    pip install ziglang; npm install esbuild  # development tools, in any environment
    python play/build.py                      # writes wasm/, index.html, built.json and the widget's play.js

`--only wasm` or `--only bundle` builds a part; `--out FOLDER` writes elsewhere (the test compares).
The C source comes from understanding_lrs.training.native, so run it with the project's Python.
"""
import argparse, hashlib, importlib.util, json, os, shutil, subprocess, sys, tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
TARGET = ['-target', 'wasm32-wasi', '-mexec-model=reactor', '-O3', '-std=gnu11']
TARGET += ['-fno-math-errno', '-fno-trapping-math']
EXPORTS = ('malloc', 'free', 'ulrs_train', 'ulrs_evaluate', 'play_stream', 'play_uniform', 'play_normal',
           'play_integers', 'play_permutation', 'play_logits')
KERNELS = {'mlp.wasm': ['-msimd128'], # file -> its instructions
           'mlp-relaxed.wasm': ['-msimd128', '-mrelaxed-simd']}

def find_zig() -> list|None: # words of a command
    "The C compiler of zig: the one on the path, that of $ZIG, or of the package ziglang"
    if os.environ.get('ZIG'): return os.environ['ZIG'].split() + ['cc']
    if shutil.which('zig'): return ['zig', 'cc']
    if importlib.util.find_spec('ziglang'): return [sys.executable, '-m', 'ziglang', 'cc']

def find_esbuild() -> str|None: # path of the program
    "esbuild: $ESBUILD, on the path, or below node_modules"
    places = os.pathsep.join([os.environ['PATH'], str(HERE/'node_modules/.bin')])
    return os.environ.get('ESBUILD') or shutil.which('esbuild', path=places)

def c_source() -> str:
    "The training step and what the page adds to it"
    from understanding_lrs.training.native import SOURCE
    return SOURCE + (HERE/'src/draw.c').read_text()

def build_wasm(out:Path): # folder
    "Compile both kernels; the second one uses fused multiply-adds, which not every browser has"
    exports = [f'-Wl,--export={name}' for name in EXPORTS]
    with tempfile.TemporaryDirectory() as tmp:
        source = Path(tmp)/'kernel.c' # a fixed name: it must not leave a trace in the result
        source.write_text(c_source())
        for name,instructions in KERNELS.items():
            options = [*TARGET, *instructions, '-Wl,--strip-all', *exports]
            subprocess.run([*find_zig(), *options, source.name, '-o', str(out/name)], check=True, cwd=tmp)
            (out/name).chmod(0o644)

ESBUILD = ['--bundle', '--minify', '--target=es2022', '--charset=utf8']
ESBUILD += ['--legal-comments=none', '--log-level=warning']
ASSETS = ['--format=esm', '--loader:.wasm=binary', '--loader:.txt=text', '--loader:.css=text']

def bundled(esbuild:str, source:str, *options) -> str: # source: a file of src
    "One file with everything that it imports"
    command = [esbuild, source, *ESBUILD, *options]
    return subprocess.run(command, cwd=HERE/'src', check=True, capture_output=True, text=True).stdout

def build_bundle(page:Path, widget:Path): # files
    "The page with everything inside it, and the module of the widget"
    esbuild = find_esbuild()
    with tempfile.TemporaryDirectory() as tmp:
        worker = Path(tmp)/'worker.txt'
        worker.write_text(bundled(esbuild, 'worker.js', '--format=iife'))
        assets = [*ASSETS, f'--alias:worker-source={worker}']
        script = bundled(esbuild, 'page.js', *assets).replace('</script', '<\\/script')
        page.write_text((HERE/'src/page.html').read_text().replace('/*BUNDLE*/', script))
        widget.write_text(bundled(esbuild, 'app.js', *assets))

def fingerprint() -> dict: # part -> SHA-256 of the sources it is built from
    "What the committed results must belong to"
    kernel = hashlib.sha256(c_source().encode()).hexdigest()
    files = sorted(f for f in (HERE/'src').iterdir() if f.suffix != '.c') + [HERE/'wasm'/name for name in KERNELS]
    bundle = hashlib.sha256(b''.join(f.name.encode() + f.read_bytes() for f in files)).hexdigest()
    return dict(kernel=kernel, bundle=bundle)

def version(command:list) -> str: # words of a command
    "What a compiler says of itself, one line"
    done = subprocess.run([*command, '--version'], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[0]

def record():
    "Write down which sources and which tools the results are of"
    made = dict(sources=fingerprint(), zig=version(find_zig()), esbuild=version([find_esbuild()]))
    (HERE/'built.json').write_text(json.dumps(made, indent=1) + '\n')

def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--only', choices=['wasm', 'bundle'])
    parser.add_argument('--out', type=Path, help='folder for all results; default: where they are committed')
    args = parser.parse_args()
    if args.out: args.out.mkdir(parents=True, exist_ok=True)
    if args.only != 'bundle':
        if not find_zig(): sys.exit('no zig: pip install ziglang, or set ZIG')
        build_wasm(args.out or HERE/'wasm')
    if args.only != 'wasm':
        if not find_esbuild(): sys.exit('no esbuild: npm install esbuild, or set ESBUILD')
        widget = (args.out or HERE.parent/'understanding_lrs/app')/'play.js'
        build_bundle((args.out or HERE)/'index.html', widget)
    if not args.out and find_zig() and find_esbuild(): record()

if __name__ == '__main__': main()
