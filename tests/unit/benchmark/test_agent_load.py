"""Agents and their tools."""

from typing import Any

import pytest

from kvloop.benchmark.workloads.agent import Agent
from kvloop.benchmark.workloads.plan import Branch
from kvloop.shared_cache.errors import ConfigError


def roles(load: Agent, conversation: int, turn: int) -> list[str]:
    return [message.role for message in load.say(conversation, turn).messages]


def test_all_agents_share_the_description_of_their_tools_and_have_tasks_of_their_own() -> None:
    load = Agent(agents=3, tools_length=30, task_length=10)
    prompts = [load.say(number, 1).ids for number in range(3)]
    assert {len(prompt) for prompt in prompts} == {40}
    assert len({prompt[:30] for prompt in prompts}) == 1
    assert len({prompt[30:] for prompt in prompts}) == 3


def test_every_later_step_brings_the_result_of_a_tool() -> None:
    load = Agent(steps=4, result_length=7)
    assert [len(load.say(0, turn).ids) for turn in (2, 3, 4)] == [7, 7, 7]
    assert len({load.say(number, turn).ids for number in range(4) for turn in (2, 3, 4)}) == 12
    assert [len(one.turns) for one in load.conversations] == [4] * 4


@pytest.mark.parametrize("role", ["user", "tool"])
def test_a_result_is_spoken_by_the_role_asked_for(role: Any) -> None:
    load = Agent(content="text", tool_role=role)
    assert roles(load, 0, 1) == ["system", "user"]
    assert roles(load, 0, 2) == [role]


def test_a_role_for_tools_needs_messages() -> None:
    with pytest.raises(ConfigError, match=r"--tool-role tool .* --text"):
        Agent(tool_role="tool")


def test_results_come_without_a_tool_role_unless_asked_for() -> None:
    assert roles(Agent(content="text"), 0, 2) == ["user"]


def test_steps_results_and_answers_are_drawn_from_their_ranges() -> None:
    load = Agent(agents=60, steps=(2, 5), result_length=(3, 9), output_length=(2, 6))
    assert {len(one.turns) for one in load.conversations} == {2, 3, 4, 5}
    assert {len(load.say(number, 2).ids) for number in range(60)} == set(range(3, 10))
    answers = {turn.output_length for one in load.conversations for turn in one.turns}
    assert answers == set(range(2, 7))


def test_the_length_of_tools_and_tasks_may_be_drawn() -> None:
    lengths = {len(Agent(tools_length=(5, 9), seed=n).say(0, 1).ids) - 100 for n in range(40)}
    assert lengths == set(range(5, 10))
    load = Agent(agents=40, tools_length=5, task_length=(3, 6))
    assert {len(load.say(n, 1).ids) - 5 for n in range(40)} == set(range(3, 7))


def test_a_tool_takes_its_time_before_each_result_and_nothing_else_waits() -> None:
    load = Agent(steps=4, tool_s=(1.0, 2.0), subagents=1)
    for one in load.conversations:
        times = [turn.think_s for turn in one.turns]
        assert times[0] == 0.0 and times[1:]
        assert all(1.0 <= time <= 2.0 for time in times[1:])
        assert len(set(times)) == len(times)


def test_subagents_know_what_their_agent_knew_and_get_tasks_of_their_own() -> None:
    load = Agent(agents=1, steps=5, subagents=2, subagent_step=3, task_length=10, result_length=7)
    assert [one.branch for one in load.conversations] == [None] + [Branch(parent=0, turns=3)] * 2
    assert [len(one.turns) for one in load.conversations] == [5, 2, 2]
    tasks = [load.say(number, 1).ids for number in (1, 2)]
    assert {len(task) for task in tasks} == {10} and tasks[0] != tasks[1]
    assert len(load.say(1, 2).ids) == 7


def test_an_agent_has_steps_left_when_its_subagents_start() -> None:
    with pytest.raises(ConfigError, match=r"--subagent-step .* below the fewest --steps \(3\)"):
        Agent(steps=(3, 6), subagents=1, subagent_step=3)


def test_equal_seeds_give_equal_agents_and_warming_up_has_tools_of_its_own() -> None:
    load, again, other = Agent(), Agent(), Agent(seed=1)
    assert load.conversations == again.conversations != other.conversations
    assert load.say(3, 2) == again.say(3, 2) != other.say(3, 2)
    assert load.say(-1, 1).ids[:16] != load.say(0, 1).ids[:16]


def test_the_report_gets_the_flags() -> None:
    words = Agent(tool_s=1.5).describe()
    assert words["kind"] == "agent" and words["tool_s"] == 1.5
    assert words["result_length"] == [50, 400] and words["requests"] == 24


@pytest.mark.parametrize(
    ("field", "value", "flag"),
    [
        ("agents", 0, "--agents"),
        ("steps", 0, "--steps"),
        ("tools_length", 0, "--tools-length"),
        ("task_length", 0, "--task-length"),
        ("result_length", (9, 3), "--result-length"),
        ("output_length", 0, "--output-length"),
        ("tool_s", -1.0, "--tool-s"),
        ("subagents", -1, "--subagents"),
    ],
)
def test_a_wrong_value_names_its_flag(field: str, value: Any, flag: str) -> None:
    with pytest.raises(ConfigError, match=flag):
        Agent(**{field: value})
