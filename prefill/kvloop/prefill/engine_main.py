"""The prefill node's engine process."""

from kvloop.engine.process import run_engine
from kvloop.prefill.scheduler import PrefillScheduler

if __name__ == "__main__":
    run_engine(PrefillScheduler)
