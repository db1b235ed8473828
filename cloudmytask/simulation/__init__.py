"""Nodes in virtual time: a clock, a network, a disk and scripts of their own, and no reactor.

The nodes in it are the real ones, the bytes between them and their clients pass the real parsers. One seed gives one
course of events, with any hash seed of the process.
"""
