"""The time at which a worker may start after others have died."""

from __future__ import annotations

from picowsgi.process.respawn import Respawn


def delays(respawn: Respawn, times: list[float]) -> list[float]:
    found = []
    for now in times:
        respawn.failed(now)
        found.append(round(respawn.due - now, 6))
    return found


def test_there_is_no_delay_before_the_first_accident() -> None:
    assert Respawn().due < 0


def test_the_delay_doubles_from_a_tenth_of_a_second_up_to_half_a_minute() -> None:
    found = delays(Respawn(), [1000.0 + number for number in range(12)])
    assert found == [0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30, 30]


def test_the_delay_has_a_maximum() -> None:
    assert delays(Respawn(), [1000.0] * 3000)[-1] == 30


def test_a_minute_without_an_accident_clears_the_earlier_ones() -> None:
    respawn = Respawn()
    assert delays(respawn, [1000.0, 1001.0, 1061.0, 1121.0]) == [0, 0.1, 0.2, 0.4]
    assert delays(respawn, [1181.5, 1182.0]) == [0, 0.1]


def test_a_reset_clears_the_accidents_at_once() -> None:
    respawn = Respawn()
    delays(respawn, [1000.0, 1001.0, 1002.0])
    respawn.reset()
    assert respawn.due < 0
    assert delays(respawn, [1003.0, 1004.0]) == [0, 0.1]
