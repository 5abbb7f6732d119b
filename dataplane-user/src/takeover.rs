//! Taking over conversations that netfilter has translated so far, as conntrack has them: the counterpart of
//! [`handover`](crate::handover).
//!
//! Conntrack's entry stays behind and is of no use any more. Until then packets may still be on their way through
//! the stack, so it is not removed; it is made to tolerate what it has not seen, and to be forgotten soon. Whoever
//! comes by the slow path later, the same client with the same port for one, finds conntrack as if none of this
//! had been.

use std::net::SocketAddr;

use anyhow::Context as _;
use aya::{
    TestRun as _,
    programs::{SchedClassifier, TestRunOptions},
};
use bytemuck::Zeroable;
use dataplane_common::{
    adoption::Adoption,
    bucket::Slot,
    flow::{Flow, FlowKey, OuterTuple},
    headers::{Be16, Be32, EtherType, Ethernet, Ip6, IpProtocol},
    layout::programs,
    published::{PortNotes, port_slot},
    settings::Admission,
    state::{State, Timeouts},
};

use crate::{
    address::Address,
    conntrack::{Conntrack, Entry, Status, TcpState},
    dataplane::{Dataplane, FamilyMaps},
    firewall::Family,
    hooks,
    instance::Instance,
    liveness::monotonic_seconds,
    rows::{Row, protocol_number},
};

/// Seconds for which conntrack keeps an entry that it sees no packets of any more: far longer than a packet is on
/// its way through the stack.
const MEMORY: u32 = 60;

/// Takes over what has been going on with the publications of `rows` that are numbered in `appeared`, whose ports
/// lead to their containers by now. Where the kernel admits flows it needs no taking over. Returns how many
/// conversations are flows now.
///
/// # Errors
///
/// Conntrack cannot be asked, or the kernel refuses a flow.
pub fn take_over(
    instance: &Instance,
    dataplane: &mut Dataplane,
    rows: &[Row],
    appeared: &[u32],
) -> anyhow::Result<usize> {
    let settings = dataplane.read_settings()?;
    let has_appeared = rows.iter().any(|row| appeared.contains(&row.number));
    if !has_appeared || Admission::from_number(settings.admission) != Admission::Direct {
        return Ok(0);
    }
    let Some(mut conntrack) = Conntrack::open()? else {
        return Ok(0);
    };
    let mut found = Vec::new();
    for family in [Family::V4, Family::V6] {
        conntrack.dump(family, |entry| {
            let row = row_of(rows, &entry).filter(|row| appeared.contains(&row.number));
            let state = state_of(&entry);
            found.extend(row.zip(state).map(|(row, state)| (entry, row, state)));
        })?;
    }
    // From now on its packets may go elsewhere.
    conntrack.refresh(found.iter().map(|(entry, ..)| Entry {
        timeout: entry.timeout.min(MEMORY),
        ..*entry
    }))?;
    let adopter = Adopter {
        program: SchedClassifier::from_pin(instance.program(programs::ADOPT))
            .context("cannot open the program that writes flows")?,
        external: hooks::external(dataplane)?
            .into_iter()
            .map(|attached| attached.ifindex)
            .collect(),
        timeouts: settings.timeouts,
        now: monotonic_seconds()?,
    };
    let mut count = 0;
    for (entry, row, state) in &found {
        let is_taken = adopter.adopt::<Be32>(&mut dataplane.v4, entry, row, *state)?
            || adopter.adopt::<Ip6>(&mut dataplane.v6, entry, row, *state)?;
        count += usize::from(is_taken);
    }
    tracing::debug!("taken over from conntrack: {count} of {}", found.len());
    Ok(count)
}

/// The publication that an entry's client talks to, if netfilter translates exactly as we would.
fn row_of<'a>(rows: &'a [Row], entry: &Entry) -> Option<&'a Row> {
    let host = entry.original.destination;
    let is_of = |row: &&Row| {
        let publication = &row.publication;
        let address = publication.host_ip;
        let is_any = address.is_unspecified() && address.is_ipv4() == host.is_ipv4();
        protocol_number(publication.protocol) == entry.protocol
            && (is_any || address == host.ip())
            && (publication.host_ports.first..=publication.host_ports.last).contains(&host.port())
    };
    // What is published on one address goes before what is on all.
    let row = rows
        .iter()
        .filter(is_of)
        .min_by_key(|row| row.publication.host_ip.is_unspecified())?;
    let publication = &row.publication;
    let port = publication.container_port + (host.port() - publication.host_ports.first);
    let container = SocketAddr::new(publication.container_ip, port);
    let is_same_client = entry.reply.destination.ip() == entry.original.source.ip();
    (entry.reply.source == container && is_same_client).then_some(row)
}

/// How far a conversation has come that is worth taking over: both sides have been heard of, and none is about to
/// end it.
fn state_of(entry: &Entry) -> Option<State> {
    if !entry.status.contains(Status::SeenReply) {
        return None;
    }
    match entry.protocol {
        IpProtocol::TCP => {
            (entry.tcp_state == Some(TcpState::ESTABLISHED)).then_some(State::Established)
        }
        _ if entry.status.contains(Status::Assured) => Some(State::Stream),
        _ => Some(State::Answered),
    }
}

/// Has flows written.
struct Adopter {
    program: SchedClassifier,
    external: Vec<u32>,
    timeouts: Timeouts,
    now: u32,
}

/// An IP version as frames name it.
trait Framed: Address + Zeroable {
    const ETHER_TYPE: EtherType;
}

impl Framed for Be32 {
    const ETHER_TYPE: EtherType = EtherType::IPV4;
}

impl Framed for Ip6 {
    const ETHER_TYPE: EtherType = EtherType::IPV6;
}

impl Adopter {
    /// Makes a conversation a flow, if it is of this IP version and its client comes by an external interface.
    /// Returns whether it is one now.
    fn adopt<A: Framed>(
        &self,
        maps: &mut FamilyMaps<A>,
        entry: &Entry,
        row: &Row,
        state: State,
    ) -> anyhow::Result<bool> {
        let Some(mut slot) = self.slot::<A>(entry, row, state) else {
            return Ok(false);
        };
        for ifindex in &self.external {
            slot.flow.external_ifindex = *ifindex;
            if self.write(A::ETHER_TYPE, bytemuck::bytes_of(&slot))? {
                if slot.key.client_port != slot.flow.client_port {
                    remap(maps, &slot)?;
                }
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The flow, but for the way back to its client.
    fn slot<A: Framed>(&self, entry: &Entry, row: &Row, state: State) -> Option<Slot<A>> {
        let (original, reply) = (entry.original, entry.reply);
        let address = |address: SocketAddr| A::from_ip(address.ip());
        let silence = self.timeouts.of(state).saturating_sub(entry.timeout);
        let last_seen = self.now.wrapping_sub(silence);
        Some(Slot {
            key: FlowKey {
                container: address(reply.source)?,
                client: address(original.source)?,
                container_port: Be16::new(reply.source.port()),
                client_port: Be16::new(reply.destination.port()),
                protocol: entry.protocol,
                padding8: 0,
                padding16: 0,
            },
            flow: Flow {
                host_address: address(original.destination)?,
                backend: row.number,
                generation: row.backend.generation,
                host_port: Be16::new(original.destination.port()),
                state: state as u8,
                client_port: Be16::new(original.source.port()),
                created: last_seen,
                last_seen,
                ..Flow::zeroed()
            },
        })
    }

    fn write(&self, ether_type: EtherType, slot: &[u8]) -> anyhow::Result<bool> {
        let header = Ethernet {
            destination: [0; 6],
            source: [0; 6],
            ether_type,
        };
        let frame = [bytemuck::bytes_of(&header), slot].concat();
        let mut options = TestRunOptions::new();
        options.data_in = Some(&frame);
        let result = self
            .program
            .test_run(options)
            .context("cannot write a flow")?;
        Ok(result.return_value == Adoption::Done as u32)
    }
}

/// Notes under which port the container sees a flow's client.
fn remap<A: Address>(maps: &mut FamilyMaps<A>, slot: &Slot<A>) -> anyhow::Result<()> {
    let (key, flow) = (&slot.key, &slot.flow);
    let tuple = OuterTuple {
        client: key.client,
        host: flow.host_address,
        client_port: flow.client_port,
        host_port: flow.host_port,
        protocol: key.protocol,
        padding8: 0,
        padding16: 0,
    };
    const NOTING: &str = "cannot note a client's other port";
    maps.remapped
        .insert(tuple, key.client_port, 0)
        .context(NOTING)?;
    maps.port_notes
        .set(port_slot(key.protocol, flow.host_port), PortNotes::ALL, 0)
        .context(NOTING)
}

#[cfg(test)]
mod tests {
    use dataplane_common::published::Backend;

    use super::*;
    use crate::{conntrack::Tuple, rows, spec::Spec};

    fn row(number: u32, spec: &str) -> Row {
        Row {
            number,
            publication: Spec::parse(spec).expect(spec),
            state: rows::State::Active,
            backend: Backend::default(),
        }
    }

    fn entry(original: [&str; 2], reply: [&str; 2]) -> Entry {
        let tuple = |[source, destination]: [&str; 2]| Tuple {
            source: source.parse().expect("an address"),
            destination: destination.parse().expect("an address"),
        };
        Entry {
            protocol: IpProtocol::TCP,
            original: tuple(original),
            reply: tuple(reply),
            status: Status::SeenReply | Status::Assured,
            timeout: 30,
            tcp_state: Some(TcpState::ESTABLISHED),
        }
    }

    #[test]
    fn only_what_netfilter_translates_as_we_would_is_taken_over() {
        const CLIENT: &str = "203.0.113.7:5000";
        let rows = [
            row(1, "9000-9009:172.17.0.2:80-89"),
            row(2, "198.51.100.2:9000:172.17.0.3:80"),
        ];
        let number = |original, reply| {
            let entry = entry([CLIENT, original], reply);
            row_of(&rows, &entry).map(|row| row.number)
        };
        let first = ["172.17.0.2:80", CLIENT];
        assert_eq!(number("198.51.100.1:9000", first), Some(1));
        assert_eq!(
            number("198.51.100.1:9003", ["172.17.0.2:83", CLIENT]),
            Some(1)
        );
        let second = ["172.17.0.3:80", CLIENT];
        assert_eq!(number("198.51.100.2:9000", second), Some(2));
        let remapped = ["172.17.0.2:80", "203.0.113.7:1024"];
        assert_eq!(number("198.51.100.1:9000", remapped), Some(1));
        // To another container, another port of it, a port that is not published; under another address.
        assert_eq!(number("198.51.100.2:9000", first), None);
        assert_eq!(number("198.51.100.1:9001", first), None);
        assert_eq!(number("198.51.100.1:9010", ["172.17.0.2:90", CLIENT]), None);
        let masqueraded = ["172.17.0.2:80", "172.17.0.1:5000"];
        assert_eq!(number("198.51.100.1:9000", masqueraded), None);
    }

    #[test]
    fn what_begins_or_ends_stays_with_the_kernel() {
        let tcp = |state, status| {
            let entry = entry(
                ["203.0.113.7:5000", "198.51.100.1:9000"],
                ["172.17.0.2:80", "203.0.113.7:5000"],
            );
            state_of(&Entry {
                tcp_state: Some(state),
                status,
                ..entry
            })
        };
        let both = Status::SeenReply | Status::Assured;
        assert_eq!(tcp(TcpState::ESTABLISHED, both), Some(State::Established));
        assert_eq!(tcp(TcpState::FIN_WAIT, both), None);
        assert_eq!(tcp(TcpState(1), Status::empty()), None);
    }
}
