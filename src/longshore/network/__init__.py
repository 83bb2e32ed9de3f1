"""The container network model: controller, sandbox, endpoint, network; drivers, addresses, ports, firewall.

Usable and tested without the daemon. Must never know containers, images or the HTTP API, and never
touch a link, rule or namespace that it did not make.
"""
