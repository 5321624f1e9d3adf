"""Intervals and the paired test: how far a share measured on a few samples can be trusted."""

from __future__ import annotations

import math
from dataclasses import dataclass

Z95 = 1.959963984540054  # the 97.5th percentile of the standard normal distribution


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A share between 0 and 1 (or a difference of two) with its 95 % interval."""

    value: float
    low: float
    high: float


def wilson(hits: int, n: int) -> Interval:
    """95 % score interval of a share: right at 0 and 1 and for few samples (Wilson, JASA 22, 1927).

    Args:
        hits: how many of the samples were right.
        n: how many samples there were, above zero.
    """
    share, z2 = hits / n, Z95 * Z95
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return Interval(value=share, low=min(share, max(0.0, centre - half)), high=max(share, min(1.0, centre + half)))


def paired_difference(gained: int, lost: int, n: int) -> Interval:
    """95 % interval of the difference of two shares measured on the same samples.

    The adjusted Wald interval on the discordant pairs: one is added to each of the two counts (Bonett and Price,
    Statistics in Medicine 31, 2012).

    Args:
        gained: samples that only the second model gets right.
        lost: samples that only the first model gets right.
        n: all samples, above zero.

    Returns:
        Second minus first; the value is the plain difference, the limits are the adjusted ones.
    """
    p_gained, p_lost = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
    centre = p_gained - p_lost
    half = Z95 * math.sqrt(max(0.0, p_gained + p_lost - centre * centre) / (n + 2))
    value = (gained - lost) / n
    return Interval(value=value, low=min(value, max(-1.0, centre - half)), high=max(value, min(1.0, centre + half)))


def mcnemar(gained: int, lost: int) -> float:
    """Exact two-sided McNemar p-value: could the discordant pairs fall like this by tossing a fair coin?

    The binomial form, exact for any count (McNemar, Psychometrika 12, 1947; Fagerland et al., BMC Medical Research
    Methodology 13, 2013).
    """
    discordant = gained + lost
    if discordant == 0:
        return 1.0
    log_half = discordant * math.log(2.0)
    tail = sum(math.exp(_log_choose(discordant, k) - log_half) for k in range(min(gained, lost) + 1))
    return min(1.0, 2.0 * tail)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
