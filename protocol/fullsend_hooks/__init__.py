"""Hooks: the commands that a person has configured for what happens.

    commands   runs one: facts as JSON on stdin, a time limit, the end of its whole process group

Both programs import it; it imports fullsend_protocol and nothing else of fullsend.
"""
