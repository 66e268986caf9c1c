"""What the actions of a checkpoint mean, read without loading its weights."""

from dataclasses import dataclass

from vla_policy_node.action_space import ActionSpace
from vla_policy_node.action_tokenizer import ActionTokenizer
from vla_policy_node.policy.checkpoint import checkpoint_name
from vla_policy_node.policy.checkpoint import read_checkpoint
from vla_policy_node.policy.checkpoint import resolve_checkpoint


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CheckpointActions:
    """What is needed to read and to judge the answers of a checkpoint's policy."""

    action_space: ActionSpace
    action_tokenizer: ActionTokenizer
    camera_names: tuple[str, ...]
    checkpoint_name: str


def read_actions(checkpoint: str, unnorm_key: str | None) -> CheckpointActions:
    """Read a checkpoint as load_policy takes it; ValueError where that would refuse its files."""
    from vla_policy_node.policy.loading import load_action_tokenizer
    from vla_policy_node.policy.loading import load_processor

    directory = resolve_checkpoint(checkpoint)
    config = read_checkpoint(directory)
    _, space = config.build_action_space(unnorm_key)
    tokenizer = load_action_tokenizer(config.tokenizer, load_processor(directory).tokenizer)
    return CheckpointActions(
        action_space=space, action_tokenizer=tokenizer,
        camera_names=tuple(camera.name for camera in config.cameras),
        checkpoint_name=checkpoint_name(checkpoint))
