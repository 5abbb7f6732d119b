//! `portway flows`.

use std::net::SocketAddr;

use dataplane_common::flow::{Flow, FlowKey};
use serde::Serialize;

use super::{args::OutputArgs, table};
use crate::{
    address::Address,
    dataplane::{Dataplane, FamilyMaps},
    flows,
    instance::Instance,
    liveness::Liveness,
    publication::Protocol,
    rows,
};

/// One live flow: the contract of `flows --json`.
#[derive(Debug, Serialize)]
pub struct FlowLine {
    protocol: Protocol,
    client: SocketAddr,
    host: SocketAddr,
    container: SocketAddr,
    state: &'static str,
    age_s: u32,
    idle_s: u32,
    packets_in: u64,
    packets_out: u64,
    bytes_in: u64,
    bytes_out: u64,
}

/// Lists live flows, the most recently seen first.
pub fn flows(instance: &Instance, args: OutputArgs) -> anyhow::Result<()> {
    let dataplane = Dataplane::open(instance)?;
    let mut lines = Vec::new();
    for_each_live(&dataplane, |line| lines.push(line))?;
    lines.sort_by_key(|line| (line.idle_s, line.client));
    if args.json {
        return table::print_json(&lines);
    }
    table::print_table(
        &[
            "PROTO",
            "CLIENT",
            "HOST",
            "CONTAINER",
            "STATE",
            "AGE",
            "IDLE",
            "PACKETS IN",
            "PACKETS OUT",
        ],
        &["AGE", "IDLE", "PACKETS IN", "PACKETS OUT"],
        lines.iter().map(|line| {
            vec![
                line.protocol.to_string(),
                line.client.to_string(),
                line.host.to_string(),
                line.container.to_string(),
                line.state.into(),
                table::seconds(line.age_s),
                table::seconds(line.idle_s),
                line.packets_in.to_string(),
                line.packets_out.to_string(),
            ]
        }),
    )
}

/// Visits flows that packets could still join.
pub fn for_each_live(dataplane: &Dataplane, mut visit: impl FnMut(FlowLine)) -> anyhow::Result<()> {
    let mut liveness = Liveness::of(&dataplane.backends, dataplane.read_settings()?.timeouts)?;
    let hash_seed = dataplane.read_record()?.hash_seed;
    visit_live(&dataplane.v4, hash_seed, &mut liveness, &mut visit)?;
    visit_live(&dataplane.v6, hash_seed, &mut liveness, &mut visit)
}

fn visit_live<A: Address>(
    maps: &FamilyMaps<A>,
    hash_seed: u64,
    liveness: &mut Liveness<'_>,
    visit: &mut impl FnMut(FlowLine),
) -> anyhow::Result<()> {
    flows::visit(maps, hash_seed, |key, flow| {
        if !liveness.is_over(flow)?
            && let Some(line) = line(key, flow, liveness.now())
        {
            visit(line);
        }
        Ok(())
    })
}

/// Seconds from one moment to another; none if a packet has come since the other was taken for now.
fn seconds_from(then: u32, now: u32) -> u32 {
    now.wrapping_sub(then).cast_signed().max(0).cast_unsigned()
}

/// A flow as of `now`, in seconds of the clock that it is stamped with.
fn line<A: Address>(key: &FlowKey<A>, flow: &Flow<A>, now: u32) -> Option<FlowLine> {
    Some(FlowLine {
        protocol: rows::protocol(key.protocol)?,
        client: SocketAddr::new(key.client.to_ip(), flow.client_port.get()),
        host: SocketAddr::new(flow.host_address.to_ip(), flow.host_port.get()),
        container: SocketAddr::new(key.container.to_ip(), key.container_port.get()),
        state: flow.state().word(),
        age_s: seconds_from(flow.created, now),
        idle_s: seconds_from(flow.last_seen, now),
        packets_in: flow.traffic.packets_in,
        packets_out: flow.traffic.packets_out,
        bytes_in: flow.traffic.bytes_in,
        bytes_out: flow.traffic.bytes_out,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_that_comes_meanwhile_is_no_age_ago() {
        assert_eq!(seconds_from(100, 103), 3);
        assert_eq!(seconds_from(104, 103), 0);
        assert_eq!(
            seconds_from(u32::MAX, 1),
            2,
            "the clock's low half goes round"
        );
    }
}
