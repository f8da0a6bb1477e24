"""`fullsendd`: the command line of the storage host, one module a command.

    main           the parser, and what every command needs: errors, exit codes, stdout
    configuration  the store of a command
    selection      the senders and streams that a command line names
    results        the output of commands: lines for a person, JSON for a program
    init, ...      the commands: `add` adds the parser, `run` runs the command

Slow imports (pydantic, uvloop) are inside the commands, so that `--version` and `--help` are fast. A command imports
what it needs before it opens the store. Then the process runs as the store's owner, who may not be able to read
Python's own files.
"""
