//! `portway ls`.

use std::net::IpAddr;

use serde::Serialize;

use super::{args::OutputArgs, table};
use crate::{
    dataplane::Dataplane,
    instance::Instance,
    publication::{Protocol, Source},
    rows::{self, Row},
};

/// One published port or range: the contract of `ls --json`.
#[derive(Debug, Serialize)]
struct Port {
    protocol: Protocol,
    host_ip: IpAddr,
    host_port: u16,
    host_port_end: u16,
    container_ip: IpAddr,
    container_port: u16,
    source: Source,
    name: String,
    state: &'static str,
    reason: String,
    packets_in: u64,
    packets_out: u64,
    bytes_in: u64,
    bytes_out: u64,
}

impl Port {
    fn new(dataplane: &Dataplane, row: Row) -> anyhow::Result<Self> {
        let traffic = dataplane.traffic_of(row.number)?;
        let publication = row.publication;
        Ok(Self {
            protocol: publication.protocol,
            host_ip: publication.host_ip,
            host_port: publication.host_ports.first,
            host_port_end: publication.host_ports.last,
            container_ip: publication.container_ip,
            container_port: publication.container_port,
            source: publication.source,
            name: publication.name,
            state: row.state.word(),
            reason: row.state.reason(),
            packets_in: traffic.packets_in,
            packets_out: traffic.packets_out,
            bytes_in: traffic.bytes_in,
            bytes_out: traffic.bytes_out,
        })
    }

    fn cells(&self) -> Vec<String> {
        let end = |first: u16| first + (self.host_port_end - self.host_port);
        vec![
            format!(
                "{}/{}",
                address(self.host_ip, self.host_port, self.host_port_end),
                self.protocol
            ),
            address(
                self.container_ip,
                self.container_port,
                end(self.container_port),
            ),
            if self.name.is_empty() {
                "-".into()
            } else {
                self.name.clone()
            },
            self.source.word().into(),
            self.state.into(),
            self.packets_in.to_string(),
            self.packets_out.to_string(),
            self.reason.clone(),
        ]
    }
}

/// Lists published ports.
pub fn ls(instance: &Instance, args: OutputArgs) -> anyhow::Result<()> {
    let dataplane = Dataplane::open(instance)?;
    let mut ports = rows::read(&dataplane)?
        .into_iter()
        .map(|row| Port::new(&dataplane, row))
        .collect::<anyhow::Result<Vec<_>>>()?;
    ports.sort_by_key(|port| (port.host_port, port.protocol, port.host_ip));
    if args.json {
        return table::print_json(&ports);
    }
    table::print_table(
        &[
            "HOST",
            "CONTAINER",
            "NAME",
            "SOURCE",
            "STATE",
            "PACKETS IN",
            "PACKETS OUT",
            "REASON",
        ],
        &["PACKETS IN", "PACKETS OUT"],
        ports.iter().map(Port::cells),
    )
}

/// An address with a port or a range of ports.
fn address(ip: IpAddr, first: u16, last: u16) -> String {
    let ports = if first == last {
        first.to_string()
    } else {
        format!("{first}-{last}")
    };
    match ip {
        IpAddr::V4(ip) => format!("{ip}:{ports}"),
        IpAddr::V6(ip) => format!("[{ip}]:{ports}"),
    }
}
