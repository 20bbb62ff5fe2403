from __future__ import annotations

import numpy as np
import pytest

from ml.quarantine import BARRED_FLOWS, MOST_SERVICES, MOST_SOURCES, Quarantine

BAD = "10.0.0.66"


def see(quarantine: Quarantine, n: int, *, alerts: int = 0, score: float = -0.3) -> None:
    """n flows of BAD, the last `alerts` of them with ALERT."""
    quarantine.count([BAD] * n, [22] * n, np.arange(n) >= n - alerts, np.full(n, score))


def test_more_than_a_tenth_and_five_alerts_bar() -> None:
    quarantine = Quarantine()
    see(quarantine, 4, alerts=4)
    assert not quarantine.barred
    see(quarantine, 1, alerts=1)
    assert quarantine.barred == {BAD}

    quarantine = Quarantine()
    see(quarantine, 50, alerts=5)  # a tenth, not more
    assert not quarantine.barred
    see(quarantine, 1, alerts=1)
    assert quarantine.barred == {BAD}


def test_a_long_good_past_hides_no_bad_present() -> None:
    quarantine = Quarantine()
    for _ in range(100):
        see(quarantine, 100)
    see(quarantine, 60, alerts=30)
    assert quarantine.barred == {BAD}


def test_it_ends_after_a_thousand_flows_and_begins_again_if_need_be() -> None:
    quarantine = Quarantine()
    see(quarantine, 5, alerts=5)
    see(quarantine, BARRED_FLOWS - 1)
    assert quarantine.barred == {BAD}
    see(quarantine, 1)
    assert not quarantine.barred
    see(quarantine, 4, alerts=4)
    assert not quarantine.barred, "what was counted before it was barred counts no more"
    see(quarantine, 1, alerts=1)
    assert quarantine.barred == {BAD}


def test_flows_just_below_the_line_one_like_the_other_bar() -> None:
    quarantine = Quarantine()
    see(quarantine, 5, score=np.log10(0.015))
    assert not quarantine.barred
    see(quarantine, 6, score=np.log10(0.015))
    assert quarantine.barred == {BAD}


def test_flows_to_one_service_add_up_between_others() -> None:
    """A device of the network guesses passwords while it goes on with its work."""
    n = 60
    guess = np.arange(n) % 4 == 0
    scores = np.where(guess, np.log10(0.015), -0.2)
    services = np.where(guess, 21, 443).tolist()
    quarantine = Quarantine()
    quarantine.count([BAD] * n, [443] * n, np.zeros(n, bool), scores)
    assert not quarantine.barred, "all together they are nothing"
    quarantine.count([BAD] * n, services, np.zeros(n, bool), scores)
    assert quarantine.barred == {BAD}


def test_many_services_do_not_fill_the_memory() -> None:
    quarantine = Quarantine()
    n = MOST_SERVICES + 7
    sources = [f"s{i % 100}" for i in range(n)]
    scores = np.where(np.arange(n) % 2, np.log10(0.05), -0.1)
    quarantine.count(sources * 2, [*range(n)] * 2, np.zeros(2 * n, bool), np.tile(scores, 2))
    assert len(quarantine._sums) <= MOST_SERVICES


@pytest.mark.parametrize("seed", range(5))
def test_normal_sources_are_not_barred(seed: int) -> None:
    """p of normal flows is uniform by construction; here in bursts of five alike."""
    rng = np.random.default_rng(seed)
    quarantine = Quarantine()
    for _ in range(400):
        scores = np.repeat(np.log10(rng.uniform(size=10)), 5)
        quarantine.count([f"10.0.0.{i % 10}" for i in range(50)], [443] * 50, scores < -2.1, scores)
    assert not quarantine.barred


def test_without_a_live_model_only_alerts_count() -> None:
    quarantine = Quarantine()
    see(quarantine, 500, score=float("nan"))
    assert not quarantine.barred
    see(quarantine, 60, alerts=60, score=float("nan"))
    assert quarantine.barred == {BAD}


def test_forged_sources_do_not_fill_the_memory() -> None:
    quarantine = Quarantine()
    see(quarantine, 5, alerts=5)
    n = MOST_SOURCES + 10
    quarantine.count([f"s{i}" for i in range(n)], range(n), np.zeros(n, bool), np.zeros(n))
    assert len(quarantine._sources) == MOST_SOURCES
    assert not quarantine.barred


def test_where_most_sources_are_odd_the_model_is_wrong() -> None:
    def see_all(odd: int, calm: int) -> frozenset[str]:
        quarantine = Quarantine()
        for i in range(odd):
            quarantine.count([f"odd{i}"] * 6, [22] * 6, np.ones(6, bool), np.full(6, -3.0))
        for i in range(calm):
            quarantine.count([f"calm{i}"] * 6, [22] * 6, np.zeros(6, bool), np.full(6, -0.3))
        return quarantine.barred

    assert see_all(4, 3) == frozenset()
    assert len(see_all(4, 4)) == 4
    assert len(see_all(2, 0)) == 2, "two are too few to say so"


def test_forgetting() -> None:
    quarantine = Quarantine()
    see(quarantine, 5, alerts=5)
    quarantine.clear()
    assert not quarantine.barred
