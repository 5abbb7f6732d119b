//! `portway flows`.

use std::net::SocketAddrV4;

use anyhow::Context as _;
use dataplane_common::{
    flow::{Flow, FlowKey},
    headers::Be32,
};
use serde::Serialize;

use super::{args::OutputArgs, table};
use crate::{
    batch::Batches, dataplane::Dataplane, instance::Instance, liveness::Liveness, ports::ipv4,
    publication::Protocol, rows,
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
    let mut lines = Vec::new();
    for_each_live(&dataplane, |key, flow, now| {
        lines.extend(line(key, flow, now));
    })?;
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

/// Visits flows that packets could still join, each with the moment as of which it is live, in seconds of
/// the clock that it is stamped with.
pub fn for_each_live(
    dataplane: &Dataplane,
    mut visit: impl FnMut(&FlowKey<Be32>, &Flow<Be32>, u32),
) -> anyhow::Result<()> {
    let mut liveness = Liveness::of(&dataplane.backends, dataplane.read_settings()?.timeouts)?;
    for map in [&dataplane.v4.flows, &dataplane.v4.opening] {
        let mut batches = Batches::default();
        while let Some(batch) = batches.read(map).context("cannot read the flows")? {
            for (key, flow) in batch {
                if !liveness.is_over(&flow)? {
                    visit(&key, &flow, liveness.now());
                }
            }
        }
    }
    Ok(())
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
