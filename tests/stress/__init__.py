"""Random applications against random clients: every byte of every response is checked.

    make stress T=60

`exchanges` describes requests and their responses, for the server and for the clients.
`application` answers, `clients` asks and compares, `findings` collects failures, `server` and
`interrupted` run the servers, and `stress` is the program.
"""
