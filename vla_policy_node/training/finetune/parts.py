"""Opens everything a run needs besides the model: sources, shares, language, statistics."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vla_policy_node.action_bins import EVEN_BINS
from vla_policy_node.action_bins import OPENVLA_BINS
from vla_policy_node.action_bins import RT1_LEVELS
from vla_policy_node.action_space import from_canonical
from vla_policy_node.action_space import NormStats
from vla_policy_node.training.finetune.base import Language
from vla_policy_node.training.finetune.base import open_folder
from vla_policy_node.training.finetune.base import open_language
from vla_policy_node.training.finetune.config import FinetuneConfig
from vla_policy_node.training.finetune.config import FinetuneConfigError
from vla_policy_node.training.finetune.tally import majority_bins
from vla_policy_node.training.sources.opening import open_source
from vla_policy_node.training.sources.records import Source
from vla_policy_node.training.sources.sampler import MixtureSampler
from vla_policy_node.training.sources.splitting import split_source
from vla_policy_node.training.sources.weights import effective_shares
from vla_policy_node.training.sources.weights import source_shares
from vla_policy_node.training.sources.weights import SourceShare

_QUANTIZERS = {'overwritten': OPENVLA_BINS, 'levels': RT1_LEVELS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """
    The data of a run and how it is said.

    train, held_out: by source name, in one order; a source may have no held-out records. stats,
    majority: over the robot's training records (see tally.majority_bins).
    """

    folder: Path
    language: Language
    train: Mapping[str, Source]
    held_out: Mapping[str, Source]
    shares: Mapping[str, float]
    stats: NormStats
    majority: np.ndarray
    transitions: int
    trajectories: int

    def sampler(self, seed: int) -> MixtureSampler:
        """Return what is drawn when, from the training records."""
        return MixtureSampler(
            [len(source) for source in self.train.values()], list(self.shares.values()), seed)

    def mixture(self, samples: int) -> tuple[SourceShare, ...]:
        """Return what each source contributes to so many samples."""
        return effective_shares(
            self.shares, {name: len(source) for name, source in self.train.items()},
            {name: _count(source) for name, source in self.train.items()}, samples)

    def fingerprints(self) -> dict[str, str]:
        """Return the sha256 of every source's training records."""
        return {name: source.fingerprint() for name, source in self.train.items()}


def open_parts(config: FinetuneConfig, cache: Path) -> Parts:
    """
    Open base and sources; ValueError with one line about the first that cannot be used.

    cache: folder for what sources make once.
    """
    config.mixture.check_names(config.sources)
    folder = open_folder(config.base)
    language = open_language(config, folder)
    sources = {
        name: open_source(
            name, section, horizon=language.token_config.horizon,
            period_s=language.action_space.period_s, cache=cache)
        for name, section in config.sources.items()}
    return gather(config, folder, language, sources)


def gather(
    config: FinetuneConfig, folder: Path, language: Language, sources: Mapping[str, Source]
) -> Parts:
    """Put the parts of a run together, given its sources."""
    splits = {name: split_source(source, share=config.validation.share, seed=config.seed)
              for name, source in sources.items()}
    train = {name: split.train for name, split in splits.items()}
    shares = source_shares(config.mixture, {name: len(source) for name, source in train.items()})
    robots = [source for name, source in train.items()
              if source.kind == 'robot' and shares[name] > 0.0]
    if not robots:
        raise FinetuneConfigError(
            'sources: expected at least one of a robot (lerobot, bags, simulator) with a share, '
            f'found only text ({", ".join(sources)}); a policy needs actions to learn from')
    actions = np.concatenate(
        [from_canonical(source.actions(), language.action_space) for source in robots])
    stats = NormStats.from_actions(actions)
    quantizer = _QUANTIZERS.get(language.token_config.scheme, EVEN_BINS)
    return Parts(
        folder=folder, language=language, train=train,
        held_out={name: split.validation for name, split in splits.items()},
        shares=shares,
        stats=stats, majority=majority_bins(quantizer.encode(stats.normalize(actions))),
        transitions=len(actions), trajectories=sum(_count(source) for source in robots))


def _count(source: Source) -> int:
    return len(np.unique(source.episodes))
