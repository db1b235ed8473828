"""Who speaks on a connection, decided once for each connection, and what may be called by whom.

Until certificates exist a client is who it claims to be (design section 7): clients are trusted colleagues, told apart
so that their jobs do not get mixed up. Working on the machine of an instance is what makes an administrator of it; a
script that came over the unix socket is none, and is the client whose job it is.

Invariant: no other module makes a principal or decides about roles.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress

from cloudmytask.core.admission import check_client
from cloudmytask.model.access import AccessRole, Principal, Proof, ScriptCaller, allowed_roles
from cloudmytask.model.cluster import PeerIdentity
from cloudmytask.model.errors import NotPermitted
from cloudmytask.model.job import ClientId


def client_principal(claim: str, peer: object, uid: int | None = None, script: ScriptCaller | None = None) -> Principal:
    """Who a client is.

    :param claim: the ClientID that it says it has.
    :param peer: the address of the other end, as a transport's ``getPeer`` tells it.
    :param uid: the user at the other end of a unix socket, as the kernel says.
    :param script: whose script the process at the other end of a unix socket is; None if it is no script's.
    :raises InvalidArgument: the claim is no ClientID.
    :raises NotPermitted: it is a script's, and nobody knows whose.
    """
    proof = _way_here(peer)
    roles = {AccessRole.CLIENT} if proof is Proof.NETWORK else {AccessRole.CLIENT, AccessRole.ADMIN}
    where = str(getattr(peer, "host", None) or "elsewhere")
    if proof is Proof.SOCKET and script is not None:
        check_client(claim)
        if script.client is None:
            raise NotPermitted(
                "this process belongs to a script, and not to one that runs here for a client that is known;"
                " connect over an address, as other machines do"
            )
        return Principal(script.client, frozenset({AccessRole.CLIENT}), proof, where, uid, script=True)
    return Principal(check_client(claim), frozenset(roles), proof, where, uid if proof is Proof.SOCKET else None)


def peer_principal(identity: PeerIdentity, *, keyed: bool) -> Principal:
    """Who another instance is, after its introduction.

    :param keyed: whether it has proven that it knows the cluster's key; if there is none, all are trusted.
    """
    proof = Proof.CLUSTER_KEY if keyed else Proof.NETWORK
    return Principal(
        ClientId(identity.name), frozenset({AccessRole(identity.role.value)}), proof, identity.address or "elsewhere"
    )


def check_allowed(principal: Principal, verb: Callable[..., object]) -> None:
    """Check that ``principal`` may call ``verb``.

    :raises NotPermitted: ``principal`` has none of the roles that ``verb`` declares.
    """
    roles = allowed_roles(verb)
    if roles & principal.roles:
        return
    if AccessRole.ADMIN in roles and principal.script:
        raise NotPermitted(f"that is for administrators, and this is a script of {principal.name}'s")
    if AccessRole.ADMIN in roles:
        raise NotPermitted(
            f"that is for users of the machine of a node or CSU, and {principal.name} is connected from"
            f" {principal.where}"
        )
    if AccessRole.NODE in roles and AccessRole.CSU in principal.roles:
        raise NotPermitted(f"{principal.name} is a csu; only nodes hand jobs over")
    raise NotPermitted(
        f"{principal.name} may not do that: it is for the roles {', '.join(sorted(roles)) or 'of nobody'}"
    )


def _way_here(peer: object) -> Proof:
    """How the other end of a connection came."""
    if isinstance(peer, UNIXAddress):
        return Proof.SOCKET
    if not isinstance(peer, IPv4Address | IPv6Address):
        return Proof.NETWORK
    try:
        address = ip_address(peer.host)
    except ValueError:
        return Proof.NETWORK
    return Proof.LOOPBACK if (getattr(address, "ipv4_mapped", None) or address).is_loopback else Proof.NETWORK
