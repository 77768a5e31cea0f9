"""Write the parameter cells of the experiment notebooks from the settings of their studies: `python tools/parameters.py [--check]`."""
import json, sys
from pathlib import Path
import papermill as pm
from understanding_lrs.studies.registry import STUDIES, parameter_cell, protocols

ROOT = Path(__file__).resolve().parent.parent

def cell_of(
    path:Path, # of an experiment notebook
) -> str:      # source that its parameter cell should have
    "The cell as the settings want it; the study and the rate that it shows are kept"
    known = pm.inspect_notebook(str(path))
    study, plr = (known[name]['default'].strip("'") for name in ('study', 'plr'))
    shown = protocols(study, 'smoke', plrs=[plr])[0]
    return parameter_cell(shown, STUDIES[study].template)

def rewrite(path:Path, write:bool) -> bool: # was it different?
    "Compare the parameter cell of a notebook, and write it where it differs"
    page = json.loads(path.read_text())
    cell, = (c for c in page['cells'] if 'parameters' in c['metadata'].get('tags', ()))
    wanted = cell_of(path).splitlines(keepends=True)
    if cell['source'] == wanted: return False
    cell['source'] = wanted
    if write: path.write_text(json.dumps(page, indent=1, ensure_ascii=False) + '\n')
    return True

def main(check:bool) -> int: # exit status
    "Go through the templates of all studies"
    stale = [t for t in sorted({s.template for s in STUDIES.values()}) if rewrite(ROOT/t, write=not check)]
    for template in stale: print(f"{template}: {'differs from the settings' if check else 'rewritten'}")
    return int(check and bool(stale))

if __name__ == '__main__': sys.exit(main('--check' in sys.argv[1:]))
