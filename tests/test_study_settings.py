"""Settings are typed fields with help texts: checks, parameter cells and help follow from them, and recorded keys do not move."""
import dataclasses
from pathlib import Path
import pandas as pd, pytest
from understanding_lrs.core.errors import InputError
from understanding_lrs.runs.published import published_protocols
from understanding_lrs.studies.registry import STUDIES, parameter_names, protocol_of, protocols
from understanding_lrs.studies.settings import (InterventionSettings, PracticalSettings, SphereSettings, SyntheticSettings,
                                                VitSettings, helps)

DATA = Path(__file__).resolve().parent.parent/'figures'/'data'
LEDGERS = sorted(DATA.glob('*/*/runs.csv'))
KINDS = SyntheticSettings, InterventionSettings, SphereSettings, PracticalSettings, VitSettings

@pytest.mark.parametrize('path', LEDGERS, ids=lambda p: f'{p.parts[-3]}/{p.parts[-2]}')
def test_keys_of_recorded_runs_are_made_anew(path):
    "a protocol that passes through typed settings and notebook parameters has the key that its run was recorded with"
    recorded = set(pd.read_csv(path).key)
    found = published_protocols(path.parent)
    assert recorded and len(found) == len(recorded)
    assert {protocol_of(p.params()).key for p in found} == recorded

def test_there_are_ledgers(): assert len(LEDGERS) >= 15

@pytest.mark.parametrize('kind', KINDS)
def test_every_setting_has_a_type_and_a_help_text(kind):
    for f in dataclasses.fields(kind):
        assert type(getattr(kind(), f.name)) is f.type and len(helps(kind())[f.name]) > 5

def test_a_list_is_not_shared():
    SyntheticSettings().utility.append(.5)
    assert SyntheticSettings().utility == [1.]

@pytest.mark.parametrize('study', STUDIES.values(), ids=lambda s: s.id)
def test_settings_round_trip(study):
    for preset in study.presets:
        for p in protocols(study.id, preset): assert study.settings_of(p).to_dict() == p.settings
    assert set(parameter_names(study.id)) == {*study.settings, *protocols(study.id, 'smoke')[0].params()}

@pytest.mark.parametrize('study', STUDIES.values(), ids=lambda s: s.id)
def test_limits_of_fields_are_kept(study):
    "one step below the least and above the most value of each field is refused by name, where it does not contradict another one first"
    for f in dataclasses.fields(study.defaults):
        beyond = {'least': -1, 'most': 1}
        for side,step in beyond.items():
            limit = f.metadata[side]
            if limit is None: continue
            with pytest.raises(InputError, match=f.name): protocols(study.id, 'smoke', overrides={f.name: limit + step})

def test_none_stands_for_the_value_of_smoke():
    params = protocols('vit_cifar10', 'smoke')[0].params()
    assert protocol_of(params | dict(depth=None)).settings['depth'] == STUDIES['vit_cifar10'].presets['smoke'].settings['depth']
    assert protocol_of(params | dict(momentum=None, rho=3.)) == protocol_of(params) # settings of other studies
    with pytest.raises(KeyError): protocol_of({k: v for k,v in params.items() if k != 'depth'})
