"""The decode node's engine process."""

from kvloop.decode.scheduler import DecodeScheduler
from kvloop.engine.process import run_engine

if __name__ == "__main__":
    run_engine(DecodeScheduler)
