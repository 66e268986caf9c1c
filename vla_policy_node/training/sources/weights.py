"""
How often each source is drawn: fixed probabilities, repetition, or temperature.

Knows sources by name and size only.
"""

from collections.abc import Iterable
from collections.abc import Mapping
from dataclasses import dataclass
import math
from typing import Annotated

from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import Field
from pydantic import FiniteFloat
from pydantic import model_validator
from rich import box
from rich.table import Table

from vla_policy_node.training.sources.records import SourceError

_SUM_TOLERANCE = 1e-6

Share = Annotated[FiniteFloat, Field(ge=0.0)]


class MixtureConfig(BaseModel):
    """
    Exactly one of three, which say the same in different words.

    probabilities: the share of each source in what is drawn; they add up to 1.
    repetition: how often each source is repeated: p_i proportional to n_i * r_i.
    temperature: p_i proportional to n_i ** (1 / T): 1 is natural, infinity (.inf) is uniform.
    """

    model_config = ConfigDict(extra='forbid', frozen=True)

    probabilities: dict[str, Share] | None = None
    repetition: dict[str, Share] | None = None
    temperature: Annotated[float, Field(ge=1.0, allow_inf_nan=True)] | None = None

    @model_validator(mode='after')
    def _check(self) -> 'MixtureConfig':
        given = [name for name, value in self if value is not None]
        if len(given) != 1:
            raise ValueError('expected one of probabilities, repetition and temperature, found '
                             f'{" and ".join(given) or "none"}')
        if self.probabilities is not None:
            _check_sum(self.probabilities)
        if self.repetition is not None and not any(self.repetition.values()):
            raise ValueError('expected a repetition above 0 for some source, found '
                             f'{self.repetition}')
        return self

    def check_names(self, sources: Iterable[str]) -> None:
        """Raise SourceError unless the mixture names exactly these sources."""
        named = self.probabilities if self.probabilities is not None else self.repetition
        if named is None:
            return
        known = sorted(sources)
        unknown, missing = sorted(set(named) - set(known)), sorted(set(known) - set(named))
        if unknown:
            raise SourceError(f'mixture: expected names of sources ({", ".join(known)}), found '
                              f'{", ".join(unknown)}; rename or remove them')
        if missing:
            raise SourceError(f'mixture: expected all sources, found none of {", ".join(missing)};'
                              ' add them (0 leaves a source out) or remove the sources')


def _check_sum(probabilities: Mapping[str, float]) -> None:
    total = math.fsum(probabilities.values())
    if abs(total - 1.0) > _SUM_TOLERANCE:
        raise ValueError(f'expected probabilities that add up to 1, found {total:.6g} from '
                         f'{probabilities}; divide each by it')


def source_shares(mixture: MixtureConfig, records: Mapping[str, int]) -> dict[str, float]:
    """
    Return the probability of each source, in the order of `records` (name -> how many).

    They add up to 1. Raises SourceError for unknown or missing names and for empty sources.
    """
    mixture.check_names(records)
    empty = [name for name, count in records.items() if count < 1]
    if empty or not records:
        raise SourceError('mixture: expected at least one record in every source, found none in '
                          f'{", ".join(empty) or "no source at all"}')
    if mixture.probabilities is not None:
        weights = {name: mixture.probabilities[name] for name in records}
    elif mixture.repetition is not None:
        weights = {name: count * mixture.repetition[name] for name, count in records.items()}
    else:
        weights = {name: count ** (1.0 / mixture.temperature) for name, count in records.items()}
    total = math.fsum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceShare:
    """
    What a mixture means for one source.

    share: of the drawn samples. seen_per_record: how many times each record is expected to be
    drawn in the whole training. episodes: how many the records belong to.
    """

    name: str
    records: int
    episodes: int
    share: float
    seen_per_record: float


def effective_shares(
    shares: Mapping[str, float], records: Mapping[str, int], episodes: Mapping[str, int],
    samples: int,
) -> tuple[SourceShare, ...]:
    """Return what each source contributes when so many samples are drawn in all."""
    return tuple(
        SourceShare(name=name, records=records[name], episodes=episodes[name], share=share,
                    seen_per_record=samples * share / records[name])
        for name, share in shares.items())


def mixture_table(rows: Iterable[SourceShare]) -> Table:
    """Return a table for the terminal, a row per source."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column('source')
    for head in ('records', 'episodes', 'share', 'each record is seen'):
        table.add_column(head, justify='right')
    for row in rows:
        table.add_row(row.name, f'{row.records:,}', f'{row.episodes:,}', f'{row.share:.2%}',
                      f'{row.seen_per_record:.3g} times')
    return table
