//! Conversations that others have begun before their port was published.
//!
//! The programs take note of what leaves from a published port and is not theirs, so that its answers are not
//! taken for packets to the publication. What left earlier is known to conntrack. Only UDP matters: a TCP
//! flow begins with a SYN, which is nobody's answer.

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::Context as _;
use dataplane_common::{
    flow::OuterTuple,
    headers::{Be16, IpProtocol},
    published::{PortNotes, port_slot},
};

use crate::{
    address::Address,
    conntrack::{Conntrack, Entry, Tuple},
    dataplane::{Dataplane, FamilyMaps},
    firewall::Family,
    liveness::monotonic_seconds,
    publication::{PortRange, Protocol, Publication},
};

/// Notes what conntrack knows of conversations from the ports of these publications, which are about to be
/// published. `addresses` are the host's own.
///
/// # Errors
///
/// Conntrack cannot be asked, or a note cannot be written.
pub fn note_foreign(
    dataplane: &mut Dataplane,
    publications: &[&Publication],
    addresses: &BTreeSet<IpAddr>,
) -> anyhow::Result<()> {
    let is_published = |protocol: IpProtocol, tuple: &Tuple| {
        let host = tuple.destination;
        protocol == IpProtocol::UDP
            && addresses.contains(&host.ip())
            && publications.iter().any(|publication| {
                let is_of = publication.host_ip == host.ip()
                    || publication.host_ip.is_unspecified()
                        && publication.host_ip.is_ipv4() == host.is_ipv4();
                let port = PortRange::single(host.port());
                publication.protocol == Protocol::Udp
                    && is_of
                    && publication.host_ports.first_shared(port).is_some()
            })
    };
    if publications
        .iter()
        .all(|publication| publication.protocol != Protocol::Udp)
    {
        return Ok(());
    }
    let Some(mut conntrack) = Conntrack::open()? else {
        return Ok(());
    };
    let mut foreign = Vec::new();
    for family in [Family::V4, Family::V6] {
        conntrack.dump(family, |entry| {
            let tuple = foreign_tuple(&entry);
            foreign.extend(tuple.filter(|tuple| is_published(entry.protocol, tuple)));
        })?;
    }
    let now = monotonic_seconds()?;
    for tuple in foreign {
        note(&mut dataplane.v4, &tuple, now)?;
        note(&mut dataplane.v6, &tuple, now)?;
    }
    Ok(())
}

/// What the packets from outside look like that nobody here must take over: of a conversation that was begun
/// on this side, and of one whose client the container sees under another port.
fn foreign_tuple(entry: &Entry) -> Option<Tuple> {
    let is_translated_here = entry.reply.source != entry.original.destination;
    if !is_translated_here {
        // What the host's sockets and its containers have begun.
        return Some(entry.reply);
    }
    let client = entry.original.source;
    (entry.reply.destination != client && entry.reply.destination.ip() == client.ip())
        .then_some(entry.original)
}

/// Notes a tuple if it is of this family.
fn note<A: Address>(maps: &mut FamilyMaps<A>, tuple: &Tuple, now: u32) -> anyhow::Result<()> {
    let (Some(client), Some(host)) = (
        A::from_ip(tuple.source.ip()),
        A::from_ip(tuple.destination.ip()),
    ) else {
        return Ok(());
    };
    let key = OuterTuple {
        client,
        host,
        client_port: Be16::new(tuple.source.port()),
        host_port: Be16::new(tuple.destination.port()),
        protocol: IpProtocol::UDP,
        padding8: 0,
        padding16: 0,
    };
    const NOTING: &str = "cannot note somebody else's conversation";
    maps.foreign.insert(key, now, 0).context(NOTING)?;
    let slot = port_slot(key.protocol, key.host_port);
    maps.port_notes.set(slot, PortNotes::ALL, 0).context(NOTING)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conntrack::Status;

    fn entry(original: [&str; 2], reply: [&str; 2]) -> Entry {
        let tuple = |[source, destination]: [&str; 2]| Tuple {
            source: source.parse().expect("an address"),
            destination: destination.parse().expect("an address"),
        };
        Entry {
            protocol: IpProtocol::UDP,
            original: tuple(original),
            reply: tuple(reply),
            status: Status::empty(),
            timeout: 30,
            tcp_state: None,
        }
    }

    #[test]
    fn conversations_are_told_apart_by_who_began_them() {
        const CLIENT: &str = "203.0.113.7:5000";
        const HOST: &str = "198.51.100.1:53";
        const CONTAINER: &str = "172.17.0.2:53";
        // A socket of the host's asks; a container's question is masqueraded.
        for asker in [HOST, CONTAINER] {
            let entry = entry([asker, CLIENT], [CLIENT, HOST]);
            assert_eq!(foreign_tuple(&entry), Some(entry.reply), "{asker}");
        }
        let published = entry([CLIENT, HOST], [CONTAINER, CLIENT]);
        assert_eq!(foreign_tuple(&published), None);
        let remapped = entry([CLIENT, HOST], [CONTAINER, "203.0.113.7:1024"]);
        assert_eq!(foreign_tuple(&remapped), Some(remapped.original));
    }
}
