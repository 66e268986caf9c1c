"""Small runs from start to policy folder: they learn, resume, survive, and say what is wrong."""

import errno
import io
import multiprocessing
import os
import signal

from finetune_fakes import FakeRobot
from finetune_fakes import FakeText
from finetune_fakes import LEVELS
from finetune_fakes import losses
from finetune_fakes import make_config
from finetune_fakes import make_parts
from finetune_fakes import records
from finetune_fakes import run_training
import numpy as np
from policy_models import save_llava
from policy_models import save_paligemma
import pytest
from rich.console import Console
import torch

from vla_policy_node.policy import load_policy
from vla_policy_node.policy import Observation
from vla_policy_node.training.finetune.dry_run import show
from vla_policy_node.training.finetune.state import StateFolder
from vla_policy_node.training.finetune.steps import NonFiniteLossError
from vla_policy_node.training.journal import read_journal

pytestmark = pytest.mark.slow

OPTIMISATION = {'batch_size': 4, 'lr': 1e-2, 'precision': 'fp32', 'save_every': 100}


@pytest.fixture(scope='module')
def base(tmp_path_factory):
    return save_llava(tmp_path_factory.mktemp('base'))


def observation(level, instruction='pick up the red block'):
    return Observation(images={'primary': np.full((40, 48, 3), level, np.uint8)},
                       instruction=instruction)


def training(steps, **changes):
    return {**OPTIMISATION, 'steps': steps, **changes}


def acts_as_taught(folder, **settings):
    policy = load_policy(folder, **{'quantization': 'none', 'dtype': 'float32', **settings})
    dark, bright = (policy.infer(observation(level)).actions[0] for level in LEVELS)
    np.testing.assert_allclose(dark[:3], [-0.03, -0.02, -0.01], atol=2e-3)
    np.testing.assert_allclose(bright[:3], [0.03, 0.02, 0.01], atol=2e-3)
    assert dark[6] < 0.1 and bright[6] > 0.9
    return policy


def test_lora_learns_actions_and_answers_and_its_folder_is_a_policy(base, tmp_path):
    config = make_config(base, training=training(25))
    out = run_training(config, tmp_path)
    found = losses(tmp_path)
    assert found[25] < 0.05 * found[1]
    policy = acts_as_taught(out)
    assert [policy.answer(observation(level, 'what is the block ?'), 4) for level in LEVELS] == [
        'green', 'red']
    assert policy.unnorm_key == 'tiny'
    assert {'provenance.json', 'training_config.yaml'} <= {path.name for path in out.iterdir()}


def test_full_tuning_learns_with_a_spread_label_and_checkpointing(base, tmp_path):
    config = make_config(
        base, tuning={'method': 'full'}, training=training(
            20, lr=3e-3, label_sigma_bins=0.3, gradient_checkpointing=True))
    acts_as_taught(run_training(config, tmp_path))


def test_qlora_trains_beside_4_bit_weights_and_is_merged_into_the_bases(base, tmp_path):
    config = make_config(base, tuning={'method': 'qlora', 'rank': 4, 'alpha': 8},
                         training=training(40, lr=1e-2, precision='bf16'),
                         validation={'share': 0.25, 'every': 10, 'pictures': 0})
    out = run_training(config, tmp_path)
    acts_as_taught(out, quantization='nf4')
    # Fewer or larger steps leave one token in every tenth run unlearned, with 4 bits or without.
    assert records(tmp_path, 'validation')[-1]['token_accuracy']['all'] == 1.0


def test_tokens_that_are_new_to_the_base_are_learned_beside_frozen_embeddings(base, tmp_path):
    config = make_config(
        base, action={'scheme': 'added', 'period_s': 0.2}, training=training(40, lr=2e-2))
    policy = acts_as_taught(run_training(config, tmp_path))
    assert policy.infer(observation(20)).token_ids.min() >= 278


def test_paligemma_with_random_crops_and_colours_learns(tmp_path):
    base = save_paligemma(tmp_path / 'base')
    config = make_config(
        base, training=training(25),
        augmentation={'crop_area': 0.9, 'brightness': 0.1, 'hue': 0.02})
    out = run_training(config, tmp_path / 'work')
    policy = acts_as_taught(out)
    assert policy._loaded.config.cameras[0].crop_area == 0.9


def test_validation_measures_accuracy_baseline_error_and_answers(base, tmp_path):
    config = make_config(base, training=training(24), validation={
        'share': 0.25, 'every': 12, 'pictures': 2})
    run_training(config, tmp_path)
    first, last = records(tmp_path, 'validation')
    assert (first['step'], last['step']) == (12, 24)
    assert last['token_accuracy'] == dict.fromkeys(
        ('x', 'y', 'z', 'roll', 'pitch', 'yaw', 'gripper', 'all'), 1.0)
    assert last['majority_accuracy']['gripper'] == 0.5
    assert last['l1_normalised']['x'] < 0.01
    assert last['answers']['count'] == 4 and 0.0 <= last['answers']['exact_match'] <= 1.0
    assert set(last['loss']) == {'all', 'robot', 'text'}
    assert [set(sample) for sample in last['samples'][:2]] == [
        {'picture', 'instruction', 'wanted', 'predicted'},
        {'picture', 'question', 'wanted', 'predicted'}]
    assert (tmp_path / last['samples'][0]['picture']).is_file()


def test_training_ends_early_when_the_held_out_loss_no_longer_falls(base, tmp_path):
    config = make_config(base, training=training(40, lr=1e-30), validation={
        'share': 0.25, 'every': 2, 'patience': 2, 'pictures': 0})
    run_training(config, tmp_path)
    assert max(losses(tmp_path)) == 6
    assert [r['name'] for r in records(tmp_path, 'event')].count('early_stop') == 1


def _train_until_killed(base, work):
    def kill(record):
        if record['kind'] == 'train' and record['step'] == 7:
            os.kill(os.getpid(), signal.SIGKILL)
    run_training(interrupted(base), work, sinks=[kill])


def interrupted(base):
    return make_config(
        base, tuning={'method': 'lora', 'rank': 4, 'alpha': 8, 'dropout': 0.1},
        training=training(12, save_every=3, warmup=2),
        augmentation={'crop_area': 0.8, 'brightness': 0.2})


def test_a_run_killed_at_any_moment_resumes_to_the_same_losses(base, tmp_path):
    run_training(interrupted(base), tmp_path / 'whole')
    child = multiprocessing.get_context('fork').Process(
        target=_train_until_killed, args=(base, tmp_path / 'cut'))
    child.start()
    child.join(timeout=120)
    assert child.exitcode == -signal.SIGKILL
    assert max(losses(tmp_path / 'cut')) == 7
    run_training(interrupted(base), tmp_path / 'cut')
    events = {r['name']: r for r in records(tmp_path / 'cut', 'event')}
    assert events['resumed']['step'] == 6
    assert losses(tmp_path / 'cut') == losses(tmp_path / 'whole')
    weights = [torch.load(tmp_path / run / 'states' / 'state-000000012.pt')['weights']
               for run in ('whole', 'cut')]
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=0, atol=0)


def test_a_state_of_another_configuration_is_refused(base, tmp_path):
    run_training(make_config(base, training=training(2)), tmp_path)
    with pytest.raises(ValueError, match='another configuration.*--work'):
        run_training(make_config(base, training=training(3)), tmp_path)


def test_a_full_disk_is_survived_and_noted(base, tmp_path, monkeypatch):
    save, attempts = StateFolder.save, []

    def full_once(self, step, content):
        attempts.append(step)
        if len(attempts) == 2:
            raise OSError(errno.ENOSPC, 'No space left on device')
        save(self, step, content)

    monkeypatch.setattr(StateFolder, 'save', full_once)
    out = run_training(make_config(base, training=training(6, save_every=2)), tmp_path)
    assert attempts == [2, 4, 6] and out.is_dir()
    [event] = [r for r in records(tmp_path, 'event') if r['name'] == 'disk_full']
    assert event['step'] == 4 and 'No space' in event['detail']


def test_corrupt_records_are_passed_over_counted_and_named(base, tmp_path):
    source = FakeRobot(records=64, corrupt=[5])
    run_training(make_config(base, training=training(20, batch_size=8)), tmp_path, source)
    events = [r for r in records(tmp_path, 'event') if r['name'] == 'corrupt_record']
    assert events and 'record 5: damaged' in events[0]['detail']
    assert records(tmp_path, 'train')[-1]['skipped'] == len(events)


def test_a_loss_that_is_not_finite_names_step_and_sources_and_keeps_the_state(base, tmp_path):
    config = make_config(base, training=training(20, lr=1e30, clip_norm=1e30, save_every=1))
    with pytest.raises(NonFiniteLossError, match=r'step \d+: .*robot.*lower training.lr'):
        run_training(config, tmp_path)
    last = max(losses(tmp_path))
    assert StateFolder(tmp_path / 'states').load()['progress']['step'] == last
    assert not (tmp_path / 'out').exists()


def test_a_mixture_without_a_robot_is_refused(base):
    with pytest.raises(ValueError, match='at least one of a robot'):
        make_parts(make_config(base), FakeText())


def test_a_dry_run_shows_shares_prompts_and_labels_read_back(base):
    config = make_config(base)
    console = Console(width=140, record=True, file=io.StringIO())
    show(config, make_parts(config), console)
    text = console.export_text()
    for words in ('57.14%', 'pick up the red block <image> Action:', 'x -30  y -20  z -10 mm',
                  'what is the block ?', 'green'):
        assert words in text


def test_the_log_begins_with_the_mixture_and_the_trained_parameters(base, tmp_path):
    run_training(make_config(base, training=training(2)), tmp_path)
    first = read_journal(tmp_path)[0]
    assert first['kind'] == 'mixture'
    assert [row['name'] for row in first['sources']] == ['robot', 'text']
    assert first['parameters']['language']['trained'] > 0
    assert first['parameters']['vision']['trained'] == 0
