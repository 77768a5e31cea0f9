"""The few rules of ruff that pyproject.toml names hold in modules, tools and tests; and what is published beside the code is well formed."""
import json, re, shutil, subprocess, sys
from pathlib import Path
import pytest, yaml

def test_ruff(root):
    ruff = shutil.which('ruff') or shutil.which(str(Path(sys.executable).with_name('ruff')))
    if not ruff: pytest.skip('ruff is not installed: make lint')
    run = subprocess.run([ruff, 'check', '--no-cache', '--output-format', 'concise'], cwd=root, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout

def test_hooks_call_what_setup_makes(root):
    (repo,) = yaml.safe_load((root/'.pre-commit-config.yaml').read_text())['repos']
    assert repo['repo'] == 'local' # nothing is fetched
    assert {h['id'] for h in repo['hooks']} == {'ruff', 'clean', 'export'}
    assert all(h['entry'].startswith('.venv/bin/') for h in repo['hooks'])

def test_workflows_call_targets_that_exist(root):
    targets = set(re.findall(r'^([a-z-]+):', (root/'Makefile').read_text(), re.M))
    flows = {f.name: yaml.safe_load(f.read_text()) for f in (root/'.github/workflows').glob('*.yml')}
    assert {'ci.yml', 'docs.yml', 'release.yml'} <= set(flows)
    for name, flow in flows.items():
        for job in flow['jobs'].values():
            assert 'timeout-minutes' in job, name
            for step in job['steps']:
                for target in re.findall(r'^\s*make ([a-z-]+)$', step.get('run', ''), re.M): assert target in targets, (name, target)

def test_actions_are_pinned(root):
    "By the hash of a commit, with the release it is beside it"
    for f in (root/'.github/workflows').glob('*.yml'):
        uses = re.findall(r'uses: (.*)', f.read_text())
        assert uses and all(re.fullmatch(r'[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+', use) for use in uses), (f.name, uses)

def test_zenodo_says_what_citation_says(root):
    cite, deposit = yaml.safe_load((root/'CITATION.cff').read_text()), json.loads((root/'.zenodo.json').read_text())
    assert deposit['title'] == cite['title'] and deposit['version'] == cite['version'] and deposit['license'] == cite['license'].lower()
    assert deposit['upload_type'] == cite['type'] and [c['name'] for c in deposit['creators']] == [a['name'] for a in cite['authors']]
    assert [r['identifier'] for r in deposit['related_identifiers']] == ['arXiv:2410.22113']

def test_binder_opens_the_tutorials(root):
    "Statically: the installed set is that of make setup, without CUDA"
    lines = (root/'.binder/requirements.txt').read_text().splitlines()
    assert lines == ['--extra-index-url https://download.pytorch.org/whl/cpu', '-c ../constraints.txt', '-e ..[all]']
    assert (root/'.binder/runtime.txt').read_text().strip() == 'python-3.11'
