"""`kvloop bench agent`: agents that call tools in a loop."""

from __future__ import annotations

import argparse

from kvloop.cli import flag_types
from kvloop.cli.bench import common, synthetic
from kvloop.cli.bench.content import add_content_flags
from kvloop.cli.help_format import Subparsers, add_command

_DESCRIPTION = """\
Runs agents against an OpenAI-compatible server: each gets a task, and what the server answers
stands for the call of a tool, whose result comes back in the next request. All agents share a
system prompt that describes the tools. Lengths, steps and times are numbers, or ranges LOW:HIGH
that are drawn from anew each time."""

_EXAMPLE = """
example:
  kvloop bench agent http://127.0.0.1:8000 --agents 8 --steps 4:10 --result-length 100:800 \\
      --tool-s 0.5:3 --subagents 2 --subagent-step 2"""


def add_to(kinds: Subparsers) -> None:
    """Add `agent` to the benchmarks."""
    parser = add_command(
        kinds,
        "agent",
        _run,
        help="agents that call tools in a loop",
        description=_DESCRIPTION,
        epilog=common.EPILOG + _EXAMPLE,
    )
    _add_flags(parser.add_argument_group("agents"))
    common.add_flags(parser)


def _add_flags(group: argparse._ArgumentGroup) -> None:
    flag, amount = group.add_argument, flag_types.amount
    flag("--agents", type=flag_types.positive_int, default=4, metavar="N", help="all of them")
    flag("--steps", type=amount, default=6, metavar="N", help="requests of each, its task's too")
    flag("--tools-length", type=amount, default=1000, metavar="N", help="tokens about the tools")
    flag("--task-length", type=amount, default=100, metavar="N", help="tokens of each task")
    flag(
        "--result-length",
        type=amount,
        default=(50, 400),
        metavar="N",
        help="tokens of a tool's result; unset: 50:400",
    )
    flag(
        "--output-length",
        type=amount,
        default=(20, 80),
        metavar="N",
        help="tokens of each answer; unset: 20:80",
    )
    flag(
        "--tool-s",
        type=flag_types.seconds,
        default=0.0,
        metavar="S",
        help="seconds that a tool takes: the mean of exponential times, or LOW:HIGH",
    )
    flag(
        "--tool-role",
        choices=("user", "tool"),
        default="user",
        help="who brings a tool's result in text; kvloop knows no tool",
    )
    flag(
        "--subagents",
        type=flag_types.count,
        default=0,
        metavar="N",
        help="others that each agent starts, with all it knows and tasks of their own",
    )
    flag(
        "--subagent-step",
        type=flag_types.positive_int,
        default=1,
        metavar="K",
        help="the step after which they start",
    )
    add_content_flags(group)


def _run(args: argparse.Namespace) -> int:
    from kvloop.benchmark.workloads.agent import Agent

    return synthetic.run(
        args,
        lambda: Agent(
            agents=args.agents,
            steps=args.steps,
            tools_length=args.tools_length,
            task_length=args.task_length,
            result_length=args.result_length,
            output_length=args.output_length,
            tool_s=args.tool_s,
            tool_role=args.tool_role,
            subagents=args.subagents,
            subagent_step=args.subagent_step,
            content=args.content,
            id_range=args.id_range,
            seed=args.seed,
        ),
        needs=[("subagent_step", "subagents")],
    )
