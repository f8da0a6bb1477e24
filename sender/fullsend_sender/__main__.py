"""`python -m fullsend_sender` does what `fullsend` does."""

from fullsend_sender.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
