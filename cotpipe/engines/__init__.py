"""Engines that generate text: one protocol, several ways to answer a prompt."""
