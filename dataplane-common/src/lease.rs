//! Admission by the host's own firewall.
//!
//! A flow's packets go up the stack until one of them is seen on its way out again: from the host's veth to
//! the container, or from the external interface to the client. Then the kernel itself has admitted and
//! translated it, as we would have, and the flow is accelerated in that direction, for as long as the lease
//! lasts. Each direction has its own, because rules can tell them apart.
//!
//! Conntrack knows these flows. So whatever is not plain, how a TCP connection begins and ends above all,
//! is left to it.

use crate::{
    family::Family,
    flow::{Flow, FlowKey, Observed},
    forward::published,
    headers::TcpFlags,
    join::{Candidate, Known},
    packet::Packet,
    parse::{Parsed, parse},
    reason::Reason,
    sequence::Segment,
    settings::Settings,
    state::{Direction, State},
    tables::Tables,
};

impl<F: Family> Candidate<'_, F> {
    /// Takes the packet into its flow if its lease is good, else lets the kernel decide.
    #[inline(never)]
    pub(crate) fn continue_by_lease<T: Tables<F>>(
        &self,
        tables: &T,
        key: &FlowKey<F::Address>,
    ) -> Known {
        if self.parsed.is_tcp() && self.settings.tcp_liberal != 1 {
            return Known::Refused(Reason::Admission);
        }
        let Some(mut flow) = tables.flow(key) else {
            return Known::Not;
        };
        if let Some(known) = self.exclude(tables, &flow) {
            return known;
        }
        let now = tables.now_millis();
        let (known, observed) =
            if Flow::<F::Address>::is_leased(flow.admitted_in_at, self.settings, now)
                && is_plain(&flow, self.parsed)
            {
                self.take_into::<T>(&mut flow, Segment::PLAIN)
            } else if T::IS_SEEN_AGAIN {
                return Known::Refused(Reason::Lease);
            } else {
                let observed = self.leave_to_kernel(&mut flow, now);
                (Known::Refused(Reason::Lease), observed)
            };
        drop(flow);
        if observed == Observed::Proven {
            tables.establish(key);
        }
        known
    }

    /// Takes note of a packet of a flow that goes up the stack. `now` in milliseconds.
    #[inline(never)]
    fn leave_to_kernel(&self, flow: &mut Flow<F::Address>, now: u32) -> Observed {
        if flow.handed_over_at == 0 {
            flow.handed_over_at = now.max(1);
        }
        let observed = flow.observe(Direction::Forward, self.parsed.segment(), self.now);
        if flow.admitted_in_at == 0 {
            // Nobody has proved anything by packets that the firewall may have dropped.
            return Observed::Noted;
        }
        observed
    }

    /// Takes the packet into its flow if it ends a connection that has been ours alone so far. Conntrack picks
    /// connections up by any other segment, but takes FIN and RST of one that it does not know for invalid, and
    /// does not translate them: the host itself would answer.
    #[inline(never)]
    pub(crate) fn end_of_ours<T: Tables<F>>(&self, tables: &T, key: &FlowKey<F::Address>) -> bool {
        tables.flow(key).is_some_and(|mut flow| {
            let is_ours_alone = flow.handed_over_at == 0
                && !flow.is_known_to_kernel(self.settings, tables.now_millis());
            is_ours_alone
                && self.exclude(tables, &flow).is_none()
                && self.take_into::<T>(&mut flow, self.parsed.segment()).0 == Known::Accepted
        })
    }
}

/// Whether conntrack can do without seeing this packet.
#[inline(always)]
fn is_plain<F: Family>(flow: &Flow<F::Address>, parsed: &Parsed<F>) -> bool {
    !parsed.is_tcp()
        || flow.state() == State::Established
            && !parsed
                .flags
                .any(TcpFlags::SYN | TcpFlags::FIN | TcpFlags::RST)
}

/// Whether a reply may be accelerated. `now` in seconds, `now_millis` in milliseconds.
#[inline(always)]
pub(crate) fn check_reply<F: Family>(
    flow: &mut Flow<F::Address>,
    parsed: &Parsed<F>,
    settings: &Settings,
    now: u32,
    now_millis: u32,
) -> Result<(), Reason> {
    let is_leased = Flow::<F::Address>::is_leased(flow.admitted_out_at, settings, now_millis)
        && is_plain(flow, parsed);
    if is_leased || !flow.is_known_to_kernel(settings, now_millis) {
        return Ok(());
    }
    // Until the kernel has been seen to let its client through it may be nobody's flow, and this a packet of
    // the container's own that looks like a reply of it.
    if flow.admitted_in_at == 0 {
        return Err(Reason::NotAReply);
    }
    flow.observe(Direction::Reply, parsed.segment(), now);
    Err(Reason::Lease)
}

/// Renews the lease of packets from outside: one of them, which [`forward`](crate::forward::forward) has left
/// to the kernel for this, leaves the host by `egress`, the host's end of a container's veth pair.
#[inline(always)]
pub fn admit_forward<F: Family, P: Packet, T: Tables<F>>(packet: &P, tables: &T, egress: u32) {
    let Ok(parsed) = parse::<F, P>(packet) else {
        return;
    };
    let key = FlowKey {
        container: parsed.network.destination,
        client: parsed.network.source,
        container_port: parsed.ports.destination,
        client_port: parsed.ports.source,
        protocol: parsed.network.protocol,
        padding8: 0,
        padding16: 0,
    };
    let Some(mut flow) = tables.flow(&key) else {
        return;
    };
    let is_its_container = tables
        .backend(flow.backend)
        .is_some_and(|backend| backend.generation == flow.generation && backend.ifindex == egress);
    if is_its_container && flow.client_port == key.client_port {
        flow.admitted_in_at = tables.now_millis().max(1);
    }
}

/// Renews the lease of replies: one of them, which [`reply`](crate::reply::reply) has left to the kernel for
/// this, leaves the host by the external interface `egress`.
#[inline(always)]
pub fn admit_reply<F: Family, P: Packet, T: Tables<F>>(packet: &P, tables: &T, egress: u32) {
    let Ok(parsed) = parse::<F, P>(packet) else {
        return;
    };
    let (network, ports) = (&parsed.network, parsed.ports);
    let Some((slot, backend)) =
        published::<F, T>(tables, network.protocol, &network.source, ports.source)
    else {
        return;
    };
    let key = FlowKey {
        container: F::from_words(&backend.address),
        client: network.destination,
        container_port: slot.port(),
        client_port: ports.destination,
        protocol: network.protocol,
        padding8: 0,
        padding16: 0,
    };
    if let Some(mut flow) = tables.flow(&key)
        && flow.host_address == network.source
        && flow.host_port == ports.source
        && flow.client_port == ports.destination
        && flow.generation == backend.generation
        && flow.external_ifindex == egress
    {
        flow.admitted_out_at = tables.now_millis().max(1);
    }
}
