//! `portway flows`.

use std::net::SocketAddrV4;

use dataplane_common::{
    flow::{Flow, FlowKey},
    headers::Be32,
};
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;

use super::{args::OutputArgs, table};
use crate::{
    dataplane::{Dataplane, entries},
    instance::Instance,
    ports::ipv4,
    publication::Protocol,
    rows,
};

/// One live flow: the contract of `flows --json`.
#[derive(Debug, Serialize)]
struct FlowLine {
    protocol: Protocol,
    client: SocketAddrV4,
    host: SocketAddrV4,
    container: SocketAddrV4,
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
    let now = monotonic_seconds()?;
    let mut lines: Vec<_> = live(&dataplane, now)?
        .into_iter()
        .filter_map(|(key, flow)| line(&key, &flow, now))
        .collect();
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

/// Flows that packets could still join: not timed out, and their backend has not changed.
pub fn live(dataplane: &Dataplane, now: u32) -> anyhow::Result<Vec<(FlowKey<Be32>, Flow<Be32>)>> {
    let backends: std::collections::HashMap<_, _> = rows::read(dataplane)?
        .into_iter()
        .map(|row| (row.number, row.backend.generation))
        .collect();
    let mut flows = entries(&dataplane.v4.flows)?;
    flows.extend(entries(&dataplane.v4.opening)?);
    let settings = dataplane.read_settings()?;
    flows.retain(|(_, flow)| {
        !flow.is_expired(&settings.timeouts, now)
            && backends.get(&flow.backend) == Some(&flow.generation)
    });
    Ok(flows)
}

/// The clock the programs stamp flows with.
pub fn monotonic_seconds() -> anyhow::Result<u32> {
    Ok(clock_gettime(ClockId::CLOCK_MONOTONIC)?.tv_sec() as u32)
}

fn line(key: &FlowKey<Be32>, flow: &Flow<Be32>, now: u32) -> Option<FlowLine> {
    Some(FlowLine {
        protocol: rows::protocol(key.protocol)?,
        client: SocketAddrV4::new(ipv4(key.client), flow.client_port.get()),
        host: SocketAddrV4::new(ipv4(flow.host_address), flow.host_port.get()),
        container: SocketAddrV4::new(ipv4(key.container), key.container_port.get()),
        state: flow.state().word(),
        age_s: now.wrapping_sub(flow.created),
        idle_s: now.wrapping_sub(flow.last_seen),
        packets_in: flow.traffic.packets_in,
        packets_out: flow.traffic.packets_out,
        bytes_in: flow.traffic.bytes_in,
        bytes_out: flow.traffic.bytes_out,
    })
}
