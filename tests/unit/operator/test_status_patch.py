from kvloop.operator.runtime.status import status_patch


def test_an_empty_text_is_left_out_for_old_api_servers_take_it_for_null() -> None:
    ready = {"type": "Ready", "status": "True", "message": ""}
    wanted = {"hit": "", "count": 0, "loop": {"at": "", "n": 1}, "conditions": [ready]}
    patch = status_patch({}, wanted, {})
    assert patch == {
        "count": 0,
        "loop": {"n": 1},
        "conditions": [{"type": "Ready", "status": "True"}],
    }


def test_a_text_that_became_empty_goes() -> None:
    before = {"hit": "5%", "loop": {"at": "now", "n": 1}}
    patch = status_patch(before, {"hit": "", "loop": {"at": "", "n": 1}}, before)
    assert patch == {"hit": None, "loop": {"at": None}}
