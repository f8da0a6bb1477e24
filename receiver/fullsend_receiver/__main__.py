"""`python -m fullsend_receiver` does what `fullsendd` does."""

from fullsend_receiver.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
