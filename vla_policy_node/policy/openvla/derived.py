"""
The vla_config.json that an original OpenVLA directory lacks, made from what it has.

A file of that name beside it may say less than usual: what it leaves out is derived.
"""

from collections.abc import Mapping
import json
from typing import Any

from pydantic import ValidationError

from vla_policy_node.action_bins import N_BINS
from vla_policy_node.action_space import ACTION_DIM
from vla_policy_node.policy.openvla.layout import base_vocabulary
from vla_policy_node.policy.openvla.layout import STATISTICS_NAME
from vla_policy_node.policy.types import PolicyError
from vla_policy_node.vla_config import CONFIG_NAME
from vla_policy_node.vla_config import PromptConfig
from vla_policy_node.vla_config import VlaConfig

_STATISTICS = ('q01', 'q99', 'mask', 'mean', 'std', 'min', 'max')
# These were recorded as deltas of roll, pitch and yaw about fixed axes.
_ROLL_PITCH_YAW = ('bridge_orig', 'fractal20220817_data')
# Bridge's 5 Hz: what OpenVLA is most used with. The files of a checkpoint do not say it.
_PERIOD_S = 0.2
# Sections of which a file beside the checkpoint may give a part.
_MERGED = ('action_space', 'prompt')


def derive_vla_config(
    raw: Mapping[str, Any],
    statistics: Mapping[str, Any] | None = None,
    given: Mapping[str, Any] | None = None,
) -> VlaConfig:
    """
    Return the configuration of an original directory; PolicyError where it does not hold one.

    raw: config.json. statistics: dataset_statistics.json, which goes before config.json's own
    norm_stats. given: vla_config.json, which goes before all.
    """
    content = dict(given or {})
    if 'tokenizer' not in content:
        content['tokenizer'] = _tokenizer(raw)
    if 'norm_stats' not in content:
        content['norm_stats'] = _norm_stats(statistics or raw.get('norm_stats') or {})
    content.setdefault('cameras', [{'name': 'primary'}])
    derived = {'action_space': _action_space(content['norm_stats']), 'prompt': _prompt(raw)}
    for name in _MERGED:
        section = content.get(name, {})
        content[name] = {**derived[name], **section} if isinstance(section, dict) else section
    try:
        return VlaConfig.model_validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = '.'.join(str(part) for part in first['loc'])
        raise PolicyError(
            f'{where}: {first["msg"].removeprefix("Value error, ")}; correct {CONFIG_NAME}, '
            f'{STATISTICS_NAME} or norm_stats in config.json') from error


def _tokenizer(raw: Mapping[str, Any]) -> dict[str, Any]:
    bins = raw.get('n_action_bins', N_BINS)
    if bins != N_BINS:
        raise PolicyError(f'expected n_action_bins {N_BINS}, found {bins}; other numbers of bins '
                          'are not supported')
    return {'scheme': 'overwritten', 'vocab_size': base_vocabulary(raw)}


def _norm_stats(found: Any) -> dict[str, Any]:
    """Return the data sets of seven-number actions, with the statistics that are understood."""
    found = found if isinstance(found, dict) else {}
    kept = {}
    for name, entry in found.items():
        action = entry.get('action') if isinstance(entry, dict) else None
        numbers = action.get('q01') if isinstance(action, dict) else None
        if not isinstance(numbers, list) or len(numbers) != ACTION_DIM:
            continue
        counts = {key: entry[key] for key in ('num_transitions', 'num_trajectories')
                  if key in entry}
        kept[name] = {'action': {key: action[key] for key in _STATISTICS if key in action},
                      **counts}
    if not kept:
        raise PolicyError(
            f'expected norm_stats in config.json, or {STATISTICS_NAME}, with q01 and q99 of '
            f'{ACTION_DIM} numbers, found data sets [{", ".join(found)}]; put the statistics of '
            'the training data there')
    return kept


def _action_space(norm_stats: Mapping[str, Any]) -> dict[str, Any]:
    known = any(name in norm_stats for name in _ROLL_PITCH_YAW)
    return {'frame': 'base', 'gripper': 'open_is_one', 'period_s': _PERIOD_S,
            'rotation': 'fixed_axis_rpy' if known else 'rotation_vector'}


def _prompt(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return the words the language model was tuned with: version 0.1 was built on Vicuna."""
    vicuna = str(raw.get('llm_backbone_id', '')).startswith('vicuna')
    template = PromptConfig.named('openvla_v01' if vicuna else 'openvla')
    return template.model_dump(exclude_none=True)
