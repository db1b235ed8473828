"""What every instance, node or CSU, does among its peers, without a reactor: announces itself, detects who has failed,
holds links to the others and the list of bans.
"""
