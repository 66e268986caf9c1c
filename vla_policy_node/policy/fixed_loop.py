"""
Decoding where the legal ids of every place are known beforehand.

All tokens of an action are chosen where the model computes; the host learns them at the end. The
work reads and writes the same tensors every time, so that it can be recorded as a graph.
"""

import logging

import numpy as np
import torch

from vla_policy_node.action_tokenizer import ActionTokenizer
from vla_policy_node.policy.choosing import Chooser
from vla_policy_node.policy.choosing import PROBABILITY
from vla_policy_node.policy.choosing import TOKEN
from vla_policy_node.policy.choosing import VALUE
from vla_policy_node.policy.cuda_graphs import Clock
from vla_policy_node.policy.cuda_graphs import GraphMaker
from vla_policy_node.policy.cuda_graphs import Work
from vla_policy_node.policy.output_head import CutHead
from vla_policy_node.policy.prompt_state import Inputs
from vla_policy_node.policy.prompt_state import PromptState

_LOGGER = logging.getLogger(__name__)


class FixedPlaces:
    """What may come at each of T places, on the device; the same for every prompt."""

    def __init__(self, tokenizer: ActionTokenizer, head: CutHead, chooser: Chooser) -> None:
        """Take a tokenizer with ``fixed_places``."""
        places = tokenizer.fixed_places
        self.chooser = chooser
        self.choices = {
            place: chooser.prepare(legal, head.columns(legal), kind)
            for place, (legal, kind) in enumerate(places) if legal.size > 1}
        self.draws = {place for place in self.choices if chooser.draws(places[place][1])}
        # A forced token is certain; the others are overwritten.
        self.rows = torch.zeros(len(places), 4, dtype=torch.float64)
        self.rows[:, TOKEN] = torch.tensor([float(legal[0]) for legal, _ in places])
        self.rows[:, PROBABILITY] = 1.0
        self.rows[:, VALUE] = torch.nan
        self.sizes = [legal.size for legal, _ in places]


class FixedLoop:
    """Decodes one prompt with new pixels, again and again."""

    def __init__(
        self, places: FixedPlaces, state: PromptState, graphs: GraphMaker | None,
        device: torch.device,
    ) -> None:
        self.state = state
        self._places = places
        self._graphs = graphs
        self._rows = places.rows.to(device)
        self._tokens = self._rows[:, TOKEN].long()
        self._noise = torch.zeros(
            len(places.rows), max(places.sizes), dtype=torch.float64, device=device)
        self._pixels: dict[str, torch.Tensor] = {}
        self._logits: torch.Tensor | None = None
        # Of the prompt and of the tokens, once recorded. Our own methods are not kept beside them:
        # a prompt that is forgotten would stay in memory until a collector comes.
        self._replays: tuple[Work | None, Work | None] = None, None
        self._runs = 0

    def run(self, pixels: Inputs, random: torch.Generator, clock: Clock) -> np.ndarray:
        """
        Return (T, 4) float64, a row per token as `Chooser.choose` gives it.

        :param pixels: the inputs of the prompt that are not the same for every frame.
        """
        self._take(pixels)
        if self._places.draws:
            self._noise.copy_(self._places.chooser.noise(*self._noise.shape, random))
        # The first run lets transformers prepare every place, which no graph can hold.
        if self._graphs is not None and self._runs == 1:
            self._record()
        self._runs += 1
        work = self._prefill, self._choose_all
        for replay, part in zip(self._replays, work, strict=True):
            (replay or part)()
            clock.mark()
        return self._rows.cpu().numpy().copy()

    def _record(self) -> None:
        """
        Make graphs of the work, as far as it asks for no value.

        Windows of attention count tokens in Python, so each part is recorded, or run, in the
        state that the part before it leaves behind.
        """
        try:
            prefill = self._recorded_prefill()
            self._replays = prefill, self._graphs(self._choose_all)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            _LOGGER.warning('decoding cannot be recorded as a graph here and runs step by step: '
                            '%s', str(error).splitlines()[0])
            self._graphs = None

    def _recorded_prefill(self) -> Work | None:
        """Return the replay of the prompt; where it cannot be recorded, run it and return None."""
        try:
            return self._graphs(self._prefill)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            _LOGGER.info('the prompt cannot be recorded as a graph here and runs step by step: '
                         '%s', str(error).splitlines()[0])
        self._prefill()
        return None

    def _take(self, pixels: Inputs) -> None:
        """Put the pixels where the work reads them."""
        if self._graphs is None or not self._pixels:
            self._pixels = {name: value.clone() if self._graphs else value
                            for name, value in pixels.items()}
            return
        for name, value in pixels.items():
            self._pixels[name].copy_(value)

    def _prefill(self) -> None:
        logits = self.state.prefill(self._pixels)
        if self._logits is None:
            self._logits = logits.clone()
        self._logits.copy_(logits)

    def _choose_all(self) -> None:
        """Choose every token that is not forced; forced ones enter the cache with the next."""
        logits, fed = self._logits, 0
        for place, candidates in self._places.choices.items():
            if place > fed:
                logits = self.state.advance(self._tokens[fed:place], fed)
                fed = place
            noise = None
            if place in self._places.draws:
                noise = self._noise[place, :len(candidates.columns)]
            row = self._places.chooser.choose(logits, candidates, noise)
            self._rows[place].copy_(row)
            self._tokens[place:place + 1].copy_(row[TOKEN:TOKEN + 1])
