.PHONY: setup check test demo bench
setup: ; scripts/setup
check: ; scripts/check
test:  ; scripts/test
demo:  ; scripts/demo
bench: setup ; .venv/bin/python bench/run.py
