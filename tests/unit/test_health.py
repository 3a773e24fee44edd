"""Health: what the pulses of actors come to, and what a service that has them is called."""

from __future__ import annotations

import json

import pytest

from datamesh.supervise.health import BLOCKED, ActorHealth, Health, Pulse, ServiceState


class Time:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def pulse(time: Time) -> Pulse:
    return Pulse("intake", shard=3, within=8.0, clock=time)


def test_who_gets_on_is_healthy_and_who_does_not_is_not(pulse: Pulse, time: Time) -> None:
    time.now += 7.9
    assert pulse.health().is_healthy
    time.now += 0.2
    assert (pulse.health().is_healthy, pulse.health().age) == (False, 8.1)
    pulse.beat()
    assert (pulse.health().is_healthy, pulse.health().age) == (True, 0.0)


def test_who_has_nothing_to_do_is_healthy_for_ever(pulse: Pulse, time: Time) -> None:
    time.now += 2.0
    with pulse.resting():
        time.now += 1000.0
        assert (pulse.health().is_healthy, pulse.health().is_resting, pulse.health().age) == (True, True, 2.0)
    assert (pulse.health().is_healthy, pulse.health().is_resting, pulse.health().age) == (True, False, 2.0)


def test_a_short_rest_does_not_hide_that_nothing_succeeds(pulse: Pulse, time: Time) -> None:
    for _ in range(20):
        with pulse.resting():
            time.now += 0.1
        pulse.failed(OSError("refused"))
        time.now += 0.5
    told = pulse.health()
    assert (told.is_healthy, told.age, told.error) == (False, 10.0, "OSError: refused")


def test_who_broke_is_unhealthy_until_it_gets_on(pulse: Pulse) -> None:
    pulse.rest()
    pulse.broke(ValueError("bad"))
    told = pulse.health()
    assert (told.is_healthy, told.restarts, told.error) == (False, 1, "ValueError: bad")
    pulse.beat()
    assert (pulse.health().is_healthy, pulse.health().restarts, pulse.health().error) == (True, 1, "")


def test_an_error_is_told_on_one_line_of_bounded_length(pulse: Pulse) -> None:
    pulse.failed(ValueError("a\nb\x1b[31m" + "x" * 5000))
    error = pulse.health().error
    assert error.startswith("ValueError: a\\nb\\x1b[31mxxx")
    assert len(error) <= 500


@pytest.mark.parametrize(
    ("health", "is_healthy", "is_ready"),
    [
        (Health(ServiceState.STARTING), True, False),
        (Health(ServiceState.WORKING), True, True),
        (Health(ServiceState.DRAINING), True, False),
        (Health(ServiceState.STOPPED), False, False),
        (Health(ServiceState.BROKEN), False, False),
        (Health(ServiceState.WORKING, lag=BLOCKED / 2), True, True),
        (Health(ServiceState.WORKING, lag=BLOCKED), False, False),
        (Health(ServiceState.WORKING, slots_total=4, slots_used=4, hung_threads=3), True, True),
        (Health(ServiceState.WORKING, slots_total=4, slots_used=4, hung_threads=4), False, False),
    ],
    ids=str,
)
def test_a_service_is_healthy_and_ready_by_its_state(health: Health, is_healthy: bool, is_ready: bool) -> None:
    assert (health.is_healthy, health.is_ready) == (is_healthy, is_ready)


def test_one_unhealthy_actor_makes_the_service_so_and_json_tells_which() -> None:
    well = ActorHealth("intake", 0, True, False, 0.5, 8.0, 0, "")
    ill = ActorHealth("settler", 0, False, False, 9.0, 8.0, 1, "OSError: gone")
    assert Health(ServiceState.WORKING, actors=(well,)).is_ready
    health = Health(ServiceState.WORKING, actors=(well, ill))
    assert not health.is_healthy
    told = json.loads(json.dumps(health.to_dict()))
    assert (told["healthy"], told["ready"], told["state"]) == (False, False, "working")
    assert told["actors"][1] == {
        "name": "settler", "shard": 0, "is_healthy": False, "is_resting": False, "age": 9.0, "within": 8.0,
        "restarts": 1, "error": "OSError: gone",
    }  # fmt: skip
