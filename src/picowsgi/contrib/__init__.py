"""What makes picowsgi at home in other programs, each of which its module needs."""
