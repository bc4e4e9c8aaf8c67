"""Agents: a task, then steps that each bring the result of the tool that the answer called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from kvloop.benchmark.workloads.amounts import (
    Amount,
    Seconds,
    check_amount,
    check_number,
    check_seconds,
    draw_amount,
    draw_seconds,
)
from kvloop.benchmark.workloads.branching import check_branching, write_families
from kvloop.benchmark.workloads.plan import Turn
from kvloop.benchmark.workloads.script import Line, Part, Script
from kvloop.benchmark.workloads.scripted import Scripted
from kvloop.shared_cache.errors import ConfigError

ToolRole = Literal["user", "tool"]
"""Who brings a tool's result; not every server's template knows `tool`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent(Scripted):
    """Agents that share a system prompt with their tools; fields are the command's flags.

    What the model answers stands for its call of a tool: it goes into the history as it is.
    """

    kind: ClassVar[str] = "agent"
    lengths: ClassVar[str] = "--steps, --result-length or --tools-length"
    agents: int = 4
    steps: Amount = 6
    """Requests of an agent: its task, then one for each result."""
    tools_length: Amount = 1000
    """Tokens of the system prompt that describes the tools; all agents share one."""
    task_length: Amount = 100
    result_length: Amount = (50, 400)
    """Tokens of a tool's result."""
    output_length: Amount = (20, 80)
    """Tokens of each answer: the call of a tool, at last the outcome."""
    tool_s: Seconds = 0.0
    """How long a tool takes: from the answer that calls it to the request with its result."""
    tool_role: ToolRole = "user"
    subagents: int = 0
    """Others that each agent starts after `subagent_step`, with all it knows and their own tasks;
    they and the agent go on side by side."""
    subagent_step: int = 1

    def check(self) -> None:
        check_number("--agents", self.agents)
        check_amount("--steps", self.steps)
        check_amount("--tools-length", self.tools_length)
        check_amount("--task-length", self.task_length)
        check_amount("--result-length", self.result_length)
        check_amount("--output-length", self.output_length)
        check_seconds("--tool-s", self.tool_s)
        if self.tool_role == "tool" and self.content == "token-ids":
            raise ConfigError("--tool-role tool names who speaks a message: it needs --text")
        check_branching(
            ("--subagents", self.subagents),
            ("--subagent-step", self.subagent_step),
            ("--steps", self.steps),
        )

    def write(self) -> tuple[Script, ...]:
        return write_families(
            self.agents, self.subagents, self.subagent_step, self._agent, self._subagent
        )

    def _agent(self, number: int) -> tuple[Line, ...]:
        name = str(number)
        tools = Part(key="tools", length=self._amount(self.tools_length, "tools"), role="system")
        first = self._line(name, 1, (tools, self._task(name)))
        return (first, *self._loop(name, 2))

    def _subagent(self, agent: int, number: int) -> tuple[Line, ...]:
        name, step = f"{agent}.{number}", self.subagent_step + 1
        first = self._line(name, step, (self._task(name),))
        return (first, *self._loop(name, step + 1))

    def _loop(self, name: str, first: int) -> tuple[Line, ...]:
        last = self._amount(self.steps, "steps", name)
        return tuple(self._step(name, step) for step in range(first, last + 1))

    def _step(self, name: str, step: int) -> Line:
        wait_s = draw_seconds(self.tool_s, self.draw("tool", name, step))
        return self._line(name, step, (self._result(name, step),), wait_s)

    def _line(self, name: str, step: int, parts: tuple[Part, ...], wait_s: float = 0.0) -> Line:
        output = self._amount(self.output_length, "output", name, step)
        return Line(parts=parts, turn=Turn(output_length=output, think_s=wait_s))

    def _task(self, name: str) -> Part:
        return Part(key=f"task/{name}", length=self._amount(self.task_length, "task", name))

    def _result(self, name: str, step: int) -> Part:
        length = self._amount(self.result_length, "result", name, step)
        return Part(key=f"result/{name}/{step}", length=length, role=self.tool_role)

    def _amount(self, amount: Amount, *what: object) -> int:
        return draw_amount(amount, self.draw(*what))
