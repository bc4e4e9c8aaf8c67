from kvloop.shared_cache.back_off import BackOff


def test_waits_double_up_to_the_longest() -> None:
    back_off, waits = BackOff(0.5, 3.0), []
    for _ in range(5):
        waits.append(back_off.wait_s)
        back_off.lengthen()
    assert waits == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_only_a_backend_that_worked_for_long_starts_anew() -> None:
    back_off = BackOff(0.5, 3.0)
    back_off.lengthen()
    back_off.given_up_after(2.9)
    assert back_off.wait_s == 1.0
    back_off.given_up_after(3.1)
    assert back_off.wait_s == 0.5
