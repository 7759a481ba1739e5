"""Random applications against random clients: every byte of every response is checked.

    make stress T=60

`exchanges` says what a request asks for and what its response has to be, for both sides;
`application` answers, `clients` asks and compares, `findings` collects what was wrong, and `stress`
runs rounds of servers with different options.
"""
