"""`fullsendd`: the command line of the storage host, one module a command.

    main           the parser, and what happens around every command: errors, exit codes, stdout
    configuration  the store that a command works on
    selection      the senders and streams that its words name
    results        what commands say of what they have done: lines for a person, JSON for a program
    init, ...      the commands: `add` says what each takes, `run` does it

Heavy imports (pydantic, uvloop) happen inside the commands, so that `--version` and `--help` are quick. A command
imports what it needs before it opens the store. From then on it is the store's owner, who may not be able to read
Python's own files.
"""
