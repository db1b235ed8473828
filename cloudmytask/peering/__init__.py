"""What every instance, node or CSU, does among its peers, without a reactor: announces itself, keeps a roster of the
others, holds links to them and the list of bans.
"""
