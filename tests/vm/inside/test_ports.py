"""As many ports as a switch can have. Here root may raise the limit of open files that so many need; in a container it often
may not, and the same check then shows the switch with fewer."""

from crowd import crowd


def test_4096_ports(directory):
    assert crowd(directory) == 4096
