"""One machine, all parts: plan, start, chat, watch, stop."""
