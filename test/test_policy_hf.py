"""Loaded policies, quantised and not, keep the contract; bad settings are named."""

import json
import shutil
import socket
from types import SimpleNamespace

import numpy as np
from policy_contract import observation
from policy_contract import PolicyContract
from policy_models import digit_tokenizer
from policy_models import save_llava
from policy_models import save_paligemma
from policy_models import vla_config
from policy_models import word_tokenizer
import pytest
from safetensors.torch import load_file
from safetensors.torch import save_file
from tokenizers import decoders
from tokenizers import models as token_models
from tokenizers import pre_tokenizers
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from vla_policy_node.policy import load_policy
from vla_policy_node.policy import Observation
from vla_policy_node.policy import PolicyError
from vla_policy_node.policy import run_self_test
from vla_policy_node.policy.chunks import build_chunk
from vla_policy_node.policy.chunks import PlanDescription
from vla_policy_node.policy.loading import load_action_tokenizer
from vla_policy_node.vla_config import VlaConfig

pytestmark = pytest.mark.slow

PLAN = {'scheme': 'text', 'separator': '', 'plan_length': 2, 'terminate': True, 'horizon': 2}


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    return save_llava(tmp_path_factory.mktemp('llava'))


@pytest.fixture(scope='module')
def plain(checkpoint):
    return load_policy(checkpoint, quantization='none', dtype='float32')


@pytest.fixture(scope='module')
def nf4(checkpoint):
    return load_policy(checkpoint)


@pytest.fixture
def copy(checkpoint, tmp_path):
    """Return a copy of the checkpoint, with no recorded sha256, for a test to damage."""
    target = shutil.copytree(checkpoint, tmp_path / 'copy')
    (target / 'vla_config.json').write_text(json.dumps(vla_config()))
    return target


def change(directory, name, **entries):
    path = directory / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def load_plain(directory, **settings):
    return load_policy(directory, **{'quantization': 'none', 'dtype': 'float32', **settings})


class TestUnquantised(PolicyContract):

    @pytest.fixture
    def policy(self, plain):
        return plain

    @pytest.fixture(autouse=True)
    def _keep(self, checkpoint):
        self._checkpoint = checkpoint

    def make_policy(self):
        return load_plain(self._checkpoint)


class TestNf4(PolicyContract):

    @pytest.fixture
    def policy(self, nf4):
        return nf4

    @pytest.fixture(autouse=True)
    def _keep(self, checkpoint):
        self._checkpoint = checkpoint

    def make_policy(self):
        return load_policy(self._checkpoint)


def test_nf4_takes_every_linear_layer_of_the_language_model_and_no_other(nf4):
    assert nf4.linear4bit_layers == nf4.quantized_layers == 2 * 7
    assert (nf4.quantization, nf4.refused_layers) == ('nf4', 0)


def test_int8_takes_the_same_layers_and_acts(checkpoint):
    policy = load_policy(checkpoint, quantization='int8')
    assert (policy.quantized_layers, policy.linear4bit_layers) == (14, 0)
    assert np.isfinite(policy.infer(observation()).actions).all()


def test_layers_of_a_shape_the_cpu_kernel_refuses_stay_unquantised_and_are_counted(tmp_path):
    policy = load_policy(save_llava(tmp_path, mlp=80))
    assert (policy.linear4bit_layers, policy.refused_layers) == (2 * 4, 2 * 3)
    assert np.isfinite(policy.infer(observation()).actions).all()


def test_a_model_in_which_nothing_was_quantised_is_refused_when_asked(tmp_path):
    with pytest.raises(PolicyError, match='found 0, with 14 of a shape.*quantization none'):
        load_policy(save_llava(tmp_path, width=48, mlp=80))


def test_paligemma_acts_and_answers(tmp_path):
    policy = load_plain(save_paligemma(tmp_path))
    run_self_test(policy)
    assert isinstance(policy.answer(observation(instruction='what is red ?'), 3), str)


def test_plan_flag_and_horizon_come_out_of_one_call(tmp_path):
    chunk = load_plain(save_llava(tmp_path, tokenizer=PLAN)).infer(observation())
    assert chunk.actions.shape == chunk.token_ids.shape == (2, 7)
    assert chunk.all_token_ids.shape == (2 + 1 + 14,)
    assert chunk.plan.startswith('at ') and len(chunk.plan.split()) == 3


def test_a_plan_in_free_text_comes_out_as_words(tmp_path):
    scheme = {'scheme': 'text', 'separator': '', 'plan_words': [['red', 'green'], ['block what']],
              'plan_text': {'max_tokens': 4, 'end': 'Action:'}}
    policy = load_plain(save_llava(tmp_path, tokenizer=scheme))
    run_self_test(policy)
    plans = {policy.infer(observation(level)).plan for level in range(0, 250, 50)}
    words = {*word_tokenizer().get_vocab()} - {'Action:', *word_tokenizer().all_special_tokens}
    for plan in plans:
        *text, colour, block, what = plan.split()
        assert len(text) <= 4 and set(text) <= words
        assert (colour in ('red', 'green'), block, what) == (True, 'block', 'what')


def test_a_byte_level_vocabulary_plans_up_to_the_end_of_a_line():
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(token_models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    words = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token='<eos>', additional_special_tokens=['<image>'])
    config = VlaConfig.model_validate(vla_config(tokenizer={
        'scheme': 'added', 'first_id': 300, 'plan_text': {}, 'plan_words': [[' red', ' blue']]}))
    actions = load_action_tokenizer(config.tokenizer, words)
    text = words.encode('go \u00e9!')
    ids = actions.encode(np.zeros((1, 7)), plan_ids=text, plan_words=(1,))
    assert words.decode(ids[:len(text) + 6]) == 'go \u00e9!\n blue'
    chunk = build_chunk(
        SimpleNamespace(token_ids=np.array(ids), probabilities=np.ones(len(ids)),
                        values=np.full(len(ids), np.nan)),
        actions, config.build_action_space()[1], {},
        PlanDescription(config.tokenizer, words.decode))
    assert chunk.plan == 'go \u00e9! blue'
    assert actions.legal_next([]).tolist() == list(range(256))  # No <eos>, no <image>.


def test_a_plan_may_be_left_out_where_that_was_trained(tmp_path):
    prompt = {**vla_config()['prompt'], 'action_at_once': '{instruction} <image> what'}
    directory = save_llava(tmp_path, tokenizer=PLAN, prompt=prompt)
    at_once = load_plain(directory, plan=False).infer(observation())
    assert (at_once.plan, at_once.all_token_ids.size) == ('', 1 + 14)
    change(directory, 'vla_config.json', tokenizer={**PLAN, 'plan_length': 0},
           prompt={**prompt, 'action': prompt['action_at_once']})
    same = load_plain(directory).infer(observation())
    np.testing.assert_array_equal(at_once.actions, same.actions)


def test_a_plan_that_was_always_trained_cannot_be_left_out(tmp_path):
    with pytest.raises(ValueError, match='plan off: .* leave the plan on'):
        load_plain(save_llava(tmp_path, tokenizer=PLAN), plan=False)


def test_a_checkpoint_without_a_plan_needs_no_second_prompt(checkpoint, plain):
    at_once = load_plain(checkpoint, plan=False).infer(observation())
    np.testing.assert_array_equal(at_once.actions, plain.infer(observation()).actions)


def test_a_word_of_the_plan_that_the_model_does_not_know_is_named(tmp_path):
    plan = {'scheme': 'text', 'separator': '', 'plan_words': [['red', 'purple']]}
    with pytest.raises(PolicyError, match="text that the model knows, found 'purple'"):
        load_plain(save_llava(tmp_path, tokenizer=plan))


def test_numbers_written_digit_by_digit_are_decoded(tmp_path):
    scheme = {'scheme': 'text', 'separator': ','}
    policy = load_plain(
        save_llava(tmp_path, tokenizer_object=digit_tokenizer(), tokenizer=scheme))
    chunk = policy.infer(observation())
    assert chunk.actions.shape == (1, 7)
    np.testing.assert_array_equal(chunk.token_ids, chunk.all_token_ids)


def test_a_chat_template_is_used_and_its_start_token_is_not_doubled(copy):
    tokenizer = Tokenizer.from_file(str(copy / 'tokenizer.json'))
    tokenizer.post_processor = TemplateProcessing(
        single='<bos> $A', special_tokens=[('<bos>', tokenizer.token_to_id('<bos>'))])
    tokenizer.save(str(copy / 'tokenizer.json'))
    (copy / 'chat_template.jinja').write_text(
        "<bos> {% for part in messages[0]['content'] %}"
        "{{ '<image>' if part['type'] == 'image' else part['text'] }} {% endfor %}Action:")
    prompts = [
        {'kind': 'chat', 'action': '{instruction}', 'question': '{question}'},
        {'kind': 'text', 'action': '<image> {instruction} Action:', 'question': '{question}'},
    ]
    logits = []
    for prompt in prompts:
        change(copy, 'vla_config.json', prompt=prompt)
        logits.append(load_plain(copy).action_logits(observation()))
    np.testing.assert_array_equal(*logits)


def test_a_chat_prompt_without_a_template_is_refused(copy):
    chat = {'kind': 'chat', 'action': '{instruction}', 'question': '{question}'}
    change(copy, 'vla_config.json', prompt=chat)
    with pytest.raises(PolicyError, match='template'):
        load_plain(copy).infer(observation())


def test_expectation_can_be_asked_for_at_loading(checkpoint, plain):
    expected = load_plain(checkpoint, decoding='expectation').infer(observation(60))
    greedy = plain.infer(observation(60))
    assert not np.array_equal(expected.actions, greedy.actions)


def test_a_known_prompt_costs_only_the_pixels_and_changes_nothing(checkpoint, plain):
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (3, 48, 64, 3), np.uint8)
    views = [Observation(images={'primary': im}, instruction='pick up the') for im in images]
    cached = [plain.infer(view).all_token_ids.tolist() for view in views]
    fresh = [load_plain(checkpoint).infer(view).all_token_ids.tolist() for view in views]
    assert cached == fresh


def test_the_self_test_passes_on_a_model_that_sees(plain, nf4):
    run_self_test(plain)
    run_self_test(nf4)


def test_cameras_are_taken_in_the_checkpoints_order(tmp_path):
    cameras = [{'name': name, 'size': [32, 32]} for name in ('front', 'wrist')]
    prompt = {'action': '{instruction} <image> <image> Action:',
              'question': '{question} <image> <image> Answer:'}
    policy = load_plain(save_llava(tmp_path, cameras=cameras, prompt=prompt))
    black, white = (np.full((32, 32, 3), level, np.uint8) for level in (0, 255))
    one = Observation(images={'front': black, 'wrist': white}, instruction='pick')
    same = Observation(images={'wrist': white, 'front': black}, instruction='pick')
    other = Observation(images={'front': white, 'wrist': black}, instruction='pick')
    logits = [policy.action_logits(each) for each in (one, same, other)]
    np.testing.assert_array_equal(logits[0], logits[1])
    assert not np.array_equal(logits[0], logits[2])


def test_a_prompt_with_too_few_images_names_the_sections_to_check(tmp_path):
    cameras = [{'name': name, 'size': [32, 32]} for name in ('front', 'wrist')]
    policy = load_plain(save_llava(tmp_path, cameras=cameras))
    image = np.zeros((32, 32, 3), np.uint8)
    with pytest.raises(PolicyError, match='prompt'):
        policy.infer(Observation(images={'front': image, 'wrist': image}, instruction='pick'))


@pytest.mark.parametrize('settings, message', [
    ({'quantization': 'fp4'}, "none, nf4, int8, found 'fp4'"),
    ({'dtype': 'float64'}, "bfloat16, float32, float16, found 'float64'"),
    ({'device': 'tpu'}, "cpu.*found 'tpu'"),
    ({'device': 'cuda:99'}, "found 'cuda:99'"),
    ({'decoding': 'beam'}, 'greedy, expectation'),
    ({'unnorm_key': 'bridge_orig'}, r"\[tabletop\], found 'bridge_orig'"),
])
def test_a_setting_that_is_not_allowed_is_told_what_is(checkpoint, settings, message):
    with pytest.raises(ValueError, match=message):
        load_plain(checkpoint, **settings)


def test_several_data_sets_need_a_key(copy):
    stats = vla_config()['norm_stats']['tabletop']
    change(copy, 'vla_config.json', norm_stats={'bridge': stats, 'tabletop': stats})
    with pytest.raises(ValueError, match=r'\[bridge, tabletop\], found none'):
        load_plain(copy)


def test_code_that_a_checkpoint_brings_is_never_run(copy, tmp_path):
    proof = tmp_path / 'executed'
    (copy / 'code.py').write_text(f'open({str(proof)!r}, "w")\nclass Config: pass\n')
    auto_map = dict.fromkeys(('AutoConfig', 'AutoModelForImageTextToText'), 'code.Config')
    change(copy, 'config.json', model_type='mystery', auto_map=auto_map)
    with pytest.raises(PolicyError, match='auto_map'):
        load_plain(copy)
    assert not proof.exists()


def test_a_known_model_type_loads_without_the_code_it_brings(copy, tmp_path):
    proof = tmp_path / 'executed'
    (copy / 'code.py').write_text(f'open({str(proof)!r}, "w")\nclass Config: pass\n')
    change(copy, 'config.json', auto_map={'AutoModelForImageTextToText': 'code.Config'})
    load_plain(copy)
    assert not proof.exists()


def test_a_model_that_does_not_look_at_images_is_refused(copy):
    (copy / 'config.json').write_text('{"model_type": "llama"}')
    with pytest.raises(PolicyError, match="takes images and text.*'llama'"):
        load_plain(copy)


def test_missing_weights_are_not_filled_with_random_numbers(copy):
    weights = load_file(copy / 'model.safetensors')
    name = next(name for name in weights if 'mlp.up_proj' in name)
    del weights[name]
    save_file(weights, copy / 'model.safetensors', metadata={'format': 'pt'})
    with pytest.raises(PolicyError, match='lacks 1 weights.*up_proj'):
        load_plain(copy)


def test_weights_of_another_shape_are_refused(copy):
    content = json.loads((copy / 'config.json').read_text())
    content['text_config']['intermediate_size'] = 256
    (copy / 'config.json').write_text(json.dumps(content))
    with pytest.raises(PolicyError, match='cannot load the weights'):
        load_plain(copy)


def test_a_directory_without_a_tokenizer_is_refused(copy):
    (copy / 'tokenizer.json').unlink()
    (copy / 'tokenizer_config.json').unlink()
    with pytest.raises(PolicyError, match='processor'):
        load_plain(copy)


def test_tokens_beyond_the_vocabulary_are_refused(copy):
    change(copy, 'vla_config.json', tokenizer={'scheme': 'overwritten', 'vocab_size': 32000})
    with pytest.raises(PolicyError, match='31744..31999'):
        load_plain(copy)


def test_weights_that_are_already_quantised_are_refused(copy):
    change(copy, 'config.json', quantization_config={'quant_method': 'bitsandbytes'})
    with pytest.raises(PolicyError, match='already quantised'):
        load_plain(copy)


def test_loading_needs_no_network(checkpoint, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError('the network was used')

    monkeypatch.setattr(socket.socket, 'connect', refuse)
    load_plain(checkpoint)


def test_max_new_tokens_must_be_positive(plain):
    with pytest.raises(PolicyError, match='max_new_tokens'):
        plain.answer(observation(), 0)
