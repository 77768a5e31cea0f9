"""The adapters at work, where their libraries are installed; none of them is imported before."""
import logging, subprocess, sys
import pytest, torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from understanding_lrs import find_regimes
from understanding_lrs.core.errors import InputError
from understanding_lrs.finder import adapters

X = torch.randn(256, 4, generator=torch.Generator().manual_seed(0))
Y = (X.sum(1) > 0).long()

def loader(): return DataLoader(TensorDataset(X[:192], Y[:192]), 16, shuffle=True)
def accuracy(network): return (network(X[192:]).argmax(1) == Y[192:]).float().mean().item()
def network(): return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))

def test_nothing_is_imported_before_it_is_used():
    code = ('import sys, understanding_lrs.finder.adapters\n'
            'assert not {"lightning", "transformers", "fastai", "timm", "matplotlib"} & {*sys.modules}')
    subprocess.run([sys.executable, '-c', code], check=True)

def test_a_missing_library_is_named():
    with pytest.raises(InputError, match='needs no_such_library; install it'): adapters.library('no_such_library.part')

def test_lightning_trains_at_the_rate_that_was_found():
    pl = pytest.importorskip('lightning.pytorch', reason='Lightning is not installed')
    logging.getLogger('lightning.pytorch').setLevel(logging.ERROR)
    class Module(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = network()
        def forward(self, x): return self.net(x)
        def training_step(self, batch, i):
            loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
            self.log('loss', loss)
            return dict(loss=loss)
        def configure_optimizers(self): return torch.optim.SGD(self.parameters(), lr=.1, momentum=.9)
    for apply in (True, False):
        search = adapters.lightning_callback(accuracy, apply=apply, steps=300, progress=False)
        module, quiet = Module(), dict(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
        before = [p.detach().clone() for p in module.parameters()]
        trainer = pl.Trainer(max_steps=1, accelerator='cpu', callbacks=[search, Still(pl, before)], **quiet)
        trainer.fit(module, loader())
        assert trainer.optimizers[0].param_groups[0]['lr'] == pytest.approx(search.report.lr.value if apply else .1)
        assert trainer.global_step == 1 and 'log' not in vars(module)

def Still(pl, before):
    "A callback that sees whether the search has changed the network"
    class Check(pl.Callback):
        def on_train_start(self, trainer, module): assert all(map(torch.equal, before, module.parameters()))
    return Check()

def test_transformers_trains_at_the_rate_that_was_found(tmp_path):
    transformers = pytest.importorskip('transformers', reason='Transformers is not installed')
    pytest.importorskip('accelerate', reason='Accelerate is not installed')
    from transformers.modeling_outputs import SequenceClassifierOutput
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = network()
        def forward(self, x, labels=None, **_):
            logits = self.net(x)
            return SequenceClassifierOutput(loss=nn.functional.cross_entropy(logits, labels), logits=logits)
    def judge(model): return accuracy(model.net)
    data = [dict(x=X[i], labels=Y[i]) for i in range(192)]
    model, search = Model(), adapters.transformers_callback(judge, steps=1000, progress=False)
    before, seen = [p.detach().clone() for p in model.parameters()], []
    class Check(transformers.TrainerCallback):
        def on_step_begin(self, args, state, control, **parts):
            if not seen: assert all(map(torch.equal, before, model.parameters()))
            seen.append(parts['optimizer'].param_groups[0]['lr'])
    arguments = transformers.TrainingArguments(str(tmp_path), max_steps=3, learning_rate=1e-2, report_to=[], use_cpu=True, disable_tqdm=True,
                                               lr_scheduler_type='constant', save_strategy='no', per_device_train_batch_size=16)
    trainer = transformers.Trainer(model, arguments, train_dataset=data, callbacks=[search, Check()])
    trainer.train()
    assert seen == pytest.approx([search.report.lr.value]*3)

def test_transformers_takes_the_advice_as_arguments(tmp_path):
    net = network()
    report = find_regimes(net, torch.optim.SGD(net.parameters(), lr=.1, momentum=.9), nn.CrossEntropyLoss(), loader(), accuracy,
                          steps=500, warmup=5, progress=False)
    values = adapters.transformers_arguments(report)
    assert values['learning_rate'] == report.lr.value and values['lr_scheduler_kwargs']['num_decay_steps'] == 100
    transformers = pytest.importorskip('transformers', reason='Transformers is not installed')
    pytest.importorskip('accelerate', reason='Accelerate is not installed')
    arguments = transformers.TrainingArguments(str(tmp_path), report_to=[], use_cpu=True, **values)
    opt = torch.optim.SGD(net.parameters(), lr=arguments.learning_rate)
    schedule = transformers.get_scheduler(arguments.lr_scheduler_type, opt, 5, 500, scheduler_specific_kwargs=arguments.lr_scheduler_kwargs)
    rates = []
    for _ in range(500):
        rates.append(opt.param_groups[0]['lr'])
        opt.step()
        schedule.step()
    top = report.lr.value
    assert rates[100] == rates[399] == top and rates[450] == pytest.approx(top/2, rel=.02) and rates[499] < .02*top

def test_fastai_is_put_back():
    pytest.importorskip('fastai', reason='fastai is not installed')
    from fastai.basics import DataLoaders, Learner
    learner = Learner(DataLoaders(loader(), loader()), network(), loss_func=nn.CrossEntropyLoss(), lr=.01)
    before = [p.detach().clone() for p in learner.model.parameters()]
    report = find_regimes(adapters.fastai_closures(learner, accuracy), steps=300, rates=(1e-4, 1e-3, 1e-2, .1, 1.), progress=False)
    assert report.lr and all(map(torch.equal, before, learner.model.parameters())) and learner.opt.hypers[0]['lr'] == .01
