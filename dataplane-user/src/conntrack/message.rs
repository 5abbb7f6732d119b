//! Entries as ctnetlink's messages, and back.
//!
//! The attributes are those of include/uapi/linux/netfilter/nfnetlink_conntrack.h; what the kernel makes
//! of them is in net/netfilter/nf_conntrack_netlink.c and nf_nat_core.c.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use dataplane_common::headers::IpProtocol;
use netlink_packet_core::{
    DefaultNla, Emitable as _, NLA_F_NESTED, NetlinkHeader, NetlinkMessage, Nla as _,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterProtoFamily,
    conntrack::{
        ConntrackAttribute as Attribute, ConntrackMessage, IPTuple, ProtoInfo, ProtoInfoTCP,
        ProtoTuple, Status, Tuple as TuplePart,
    },
};

use super::entry::{Entry, TcpState, Tuple};
use crate::firewall::Family;

const CTA_NAT_SRC: u16 = 6;
const CTA_NAT_DST: u16 = 13;
const CTA_ZONE: u16 = 18;
const CTA_NAT_V4_MINIP: u16 = 1;
const CTA_NAT_PROTO: u16 = 3;
const CTA_NAT_V6_MINIP: u16 = 4;
const CTA_PROTONAT_PORT_MIN: u16 = 1;
const CTA_PROTOINFO_TCP_FLAGS_ORIGINAL: u16 = 4;
const CTA_PROTOINFO_TCP_FLAGS_REPLY: u16 = 5;

/// `IP_CT_TCP_FLAG_BE_LIBERAL`: sequence numbers out of the window are no reason to call a packet
/// invalid.
const TCP_BE_LIBERAL: u8 = 0x08;

/// A message to or from ctnetlink.
pub type Message = NetlinkMessage<NetfilterMessage>;

/// A request about entries of `family`.
fn message(family: Family, request: ConntrackMessage) -> Message {
    let family = match family {
        Family::V4 => NetfilterProtoFamily::IPv4,
        Family::V6 => NetfilterProtoFamily::IPv6,
    };
    // The version is `NFNETLINK_V0`, the only one.
    let header = NetfilterHeader::new(family, 0, 0);
    Message::new(
        NetlinkHeader::default(),
        NetfilterMessage::new(header, request).into(),
    )
}

/// Asks for all entries of `family`.
pub fn list(family: Family) -> Message {
    message(family, ConntrackMessage::Get(Vec::new()))
}

/// Asks for the entry whose tuple, in either direction, this is.
pub fn get(protocol: IpProtocol, tuple: Tuple) -> Message {
    let original = Attribute::CtaTupleOrig(encode_tuple(protocol, tuple));
    message(family(tuple), ConntrackMessage::Get(vec![original]))
}

/// Asks to remove the entry whose tuple, in either direction, this is.
pub fn delete(protocol: IpProtocol, tuple: Tuple) -> Message {
    let original = Attribute::CtaTupleOrig(encode_tuple(protocol, tuple));
    message(family(tuple), ConntrackMessage::Delete(vec![original]))
}

/// Asks to create an entry.
///
/// ctnetlink wants the answers' tuple as if nothing were translated, and works out the other from the
/// `CTA_NAT_*` attributes. Given the translated tuple it would take it, but not translate: only what
/// these attributes change gets the status bits `IPS_DST_NAT` and `IPS_SRC_NAT`, which no user may set.
/// Both are given in full, also where one changes nothing: what is left open the kernel chooses, and
/// where the tuple is taken it would choose another port than the one the container knows.
pub fn create(entry: &Entry) -> Message {
    let (original, reply) = (entry.original, entry.reply);
    let untranslated = original.inverted();
    let mut attributes = vec![
        Attribute::CtaTupleOrig(encode_tuple(entry.protocol, original)),
        Attribute::CtaTupleReply(encode_tuple(entry.protocol, untranslated)),
        status(entry),
        Attribute::CtaTimeout(entry.timeout),
    ];
    if reply != untranslated {
        attributes.push(translation(CTA_NAT_DST, reply.source));
        attributes.push(translation(CTA_NAT_SRC, reply.destination));
    }
    attributes.extend(liberal(entry));
    message(family(original), ConntrackMessage::New(attributes))
}

/// Asks to set an entry's time-out, what has been seen of it, and the state and liberality of a TCP connection.
pub fn refresh(entry: &Entry) -> Message {
    let mut attributes = vec![
        Attribute::CtaTupleOrig(encode_tuple(entry.protocol, entry.original)),
        Attribute::CtaTimeout(entry.timeout),
    ];
    let seen = Status::SeenReply | Status::Assured;
    // What has been seen cannot be unseen: the kernel would refuse all of it.
    if entry.status.contains(seen) {
        attributes.push(status(entry));
    }
    attributes.extend(liberal(entry));
    message(family(entry.original), ConntrackMessage::New(attributes))
}

/// What has been seen of a conversation. Being confirmed cannot be changed, so it has to be said.
fn status(entry: &Entry) -> Attribute {
    Attribute::CtaStatus(entry.status.difference(Status::NatMask) | Status::Confirmed)
}

/// What makes conntrack tolerate any window of a TCP connection, and sets its state: nobody knows the
/// windows of a connection that conntrack has not followed.
fn liberal(entry: &Entry) -> Option<Attribute> {
    let TcpState(state) = entry.tcp_state?;
    let flags = |kind| {
        // A `struct nf_ct_tcp_flags`: flags and mask.
        ProtoInfoTCP::Other(DefaultNla::new(kind, vec![TCP_BE_LIBERAL, TCP_BE_LIBERAL]))
    };
    Some(Attribute::CtaProtoInfo(vec![ProtoInfo::TCP(vec![
        ProtoInfoTCP::State(state),
        flags(CTA_PROTOINFO_TCP_FLAGS_ORIGINAL),
        flags(CTA_PROTOINFO_TCP_FLAGS_REPLY),
    ])]))
}

/// The entry in an answer. None where it is not one that a packet between this host's interfaces would
/// meet: zones other than the first are other tables.
pub fn entry(attributes: &[Attribute]) -> Option<Entry> {
    let (mut original, mut reply) = (None, None);
    let mut status = Status::empty();
    let mut timeout = 0;
    let mut tcp_state = None;
    for attribute in attributes {
        match attribute {
            Attribute::CtaTupleOrig(parts) => original = decode_tuple(parts),
            Attribute::CtaTupleReply(parts) => reply = decode_tuple(parts),
            Attribute::CtaStatus(bits) => status = *bits,
            Attribute::CtaTimeout(seconds) => timeout = *seconds,
            Attribute::CtaProtoInfo(infos) => tcp_state = decode_state(infos),
            Attribute::Other(other) if other.kind() == CTA_ZONE => return None,
            _ => {}
        }
    }
    let (protocol, original) = original?;
    let (_, reply) = reply?;
    Some(Entry {
        protocol,
        original,
        reply,
        status,
        timeout,
        tcp_state,
    })
}

fn family(tuple: Tuple) -> Family {
    if tuple.source.is_ipv4() {
        Family::V4
    } else {
        Family::V6
    }
}

fn encode_tuple(protocol: IpProtocol, tuple: Tuple) -> Vec<TuplePart> {
    vec![
        TuplePart::Ip(vec![
            IPTuple::SourceAddress(tuple.source.ip()),
            IPTuple::DestinationAddress(tuple.destination.ip()),
        ]),
        TuplePart::Proto(vec![
            ProtoTuple::Protocol(protocol.0.into()),
            ProtoTuple::SourcePort(tuple.source.port()),
            ProtoTuple::DestinationPort(tuple.destination.port()),
        ]),
    ]
}

fn decode_tuple(parts: &[TuplePart]) -> Option<(IpProtocol, Tuple)> {
    let unset = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let mut tuple = Tuple {
        source: unset,
        destination: unset,
    };
    let mut protocol = None;
    for part in parts {
        match part {
            TuplePart::Ip(addresses) => {
                for address in addresses {
                    match address {
                        IPTuple::SourceAddress(address) => tuple.source.set_ip(*address),
                        IPTuple::DestinationAddress(address) => tuple.destination.set_ip(*address),
                        _ => {}
                    }
                }
            }
            TuplePart::Proto(ports) => {
                for port in ports {
                    match port {
                        ProtoTuple::Protocol(number) => {
                            protocol = Some(IpProtocol((*number).into()));
                        }
                        ProtoTuple::SourcePort(port) => tuple.source.set_port(*port),
                        ProtoTuple::DestinationPort(port) => tuple.destination.set_port(*port),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some((protocol?, tuple))
}

fn decode_state(infos: &[ProtoInfo]) -> Option<TcpState> {
    infos.iter().find_map(|info| match info {
        ProtoInfo::TCP(parts) => parts.iter().find_map(|part| match part {
            ProtoInfoTCP::State(state) => Some(TcpState(*state)),
            _ => None,
        }),
        _ => None,
    })
}

/// A translation to exactly this address and port.
fn translation(kind: u16, to: SocketAddr) -> Attribute {
    let address = match to.ip() {
        IpAddr::V4(address) => DefaultNla::new(CTA_NAT_V4_MINIP, address.octets().into()),
        IpAddr::V6(address) => DefaultNla::new(CTA_NAT_V6_MINIP, address.octets().into()),
    };
    let port = DefaultNla::new(CTA_PROTONAT_PORT_MIN, to.port().to_be_bytes().into());
    Attribute::Other(nested(kind, &[address, nested(CTA_NAT_PROTO, &[port])]))
}

fn nested(kind: u16, parts: &[DefaultNla]) -> DefaultNla {
    let mut value = vec![0; parts.buffer_len()];
    parts.emit(&mut value);
    DefaultNla::new(kind | NLA_F_NESTED, value)
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::{NetlinkPayload, ParseableParametrized as _};
    use netlink_packet_netfilter::NetfilterMessageInner;

    use super::*;

    fn sent(message: &Message) -> Vec<Attribute> {
        let NetlinkPayload::InnerMessage(inner) = &message.payload else {
            panic!("not a message of netfilter");
        };
        let mut bytes = vec![0; inner.buffer_len()];
        inner.emit(&mut bytes);
        let kind = u16::from(u8::from(inner.subsys())) << 8;
        match NetfilterMessage::parse_with_param(&bytes[..], kind).map(|parsed| parsed.inner) {
            Ok(NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes))) => attributes,
            other => panic!("sent as {other:?}"),
        }
    }

    fn translated(protocol: IpProtocol, addresses: [&str; 4]) -> Entry {
        let [client, host, container, seen] =
            addresses.map(|address| address.parse().expect("address"));
        Entry::established(protocol, client, host, container, seen, 600)
    }

    #[test]
    fn a_translation_is_told_by_attributes_and_not_by_the_reply() {
        for addresses in [
            [
                "192.0.2.1:1000",
                "203.0.113.1:9000",
                "172.17.0.2:80",
                "192.0.2.1:1000",
            ],
            [
                "[2001:db8::1]:1000",
                "[2001:db8::2]:9000",
                "[fd00::2]:80",
                "[2001:db8::1]:1001",
            ],
        ] {
            let wanted = translated(IpProtocol::TCP, addresses);
            let attributes = sent(&create(&wanted));
            let said = entry(&attributes).expect("an entry");
            assert_eq!(said.original, wanted.original);
            assert_eq!(said.reply, wanted.original.inverted());
            assert_eq!(said.tcp_state, Some(TcpState::ESTABLISHED));
            assert_eq!(
                said.status,
                Status::SeenReply | Status::Assured | Status::Confirmed
            );
            let kinds: Vec<_> = attributes
                .iter()
                .filter_map(|attribute| match attribute {
                    Attribute::Other(other) => Some(other.kind() & !NLA_F_NESTED),
                    _ => None,
                })
                .collect();
            assert_eq!(kinds, [CTA_NAT_DST, CTA_NAT_SRC]);
        }
    }

    #[test]
    fn what_is_not_translated_says_nothing_of_it() {
        let plain = translated(
            IpProtocol::UDP,
            [
                "192.0.2.1:1000",
                "203.0.113.1:53",
                "203.0.113.1:53",
                "192.0.2.1:1000",
            ],
        );
        let attributes = sent(&create(&plain));
        assert_eq!(attributes.len(), 4);
        let said = entry(&attributes).expect("an entry");
        assert_eq!((said.reply, said.tcp_state), (plain.reply, None));
    }

    #[test]
    fn entries_of_other_zones_are_left_out() {
        let plain = translated(
            IpProtocol::UDP,
            [
                "192.0.2.1:1000",
                "203.0.113.1:53",
                "203.0.113.1:53",
                "192.0.2.1:1000",
            ],
        );
        let mut attributes = sent(&create(&plain));
        attributes.push(Attribute::Other(DefaultNla::new(CTA_ZONE, vec![0, 1])));
        assert_eq!(entry(&attributes), None);
    }
}
