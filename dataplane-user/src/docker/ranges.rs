//! Single ports joined to ranges.

use std::net::IpAddr;

use crate::publication::{Protocol, Publication};

/// Joins rows that continue each other on both sides: 10,001 published ports are one row. The outcome
/// is in a fixed order.
pub(super) fn join(mut rows: Vec<Publication>) -> Vec<Publication> {
    rows.sort_by(|a, b| order(a).cmp(&order(b)));
    rows.dedup();
    let mut joined: Vec<Publication> = Vec::new();
    for row in rows {
        match joined.last_mut() {
            Some(last) if continues(last, &row) => last.host_ports.last = row.host_ports.last,
            _ => joined.push(row),
        }
    }
    joined
}

/// Rows of one container, host address and protocol lie together, by port.
fn order(row: &Publication) -> (IpAddr, Protocol, &str, IpAddr, u16, u16) {
    let Publication {
        host_ip,
        protocol,
        name,
        container_ip,
        host_ports,
        container_port,
        ..
    } = row;
    (
        *host_ip,
        *protocol,
        name,
        *container_ip,
        host_ports.first,
        *container_port,
    )
}

/// Whether `next` is the port after `range`'s, on both sides, and else the same.
fn continues(range: &Publication, next: &Publication) -> bool {
    let adjacent = |last: u16, first: u16| last.checked_add(1) == Some(first);
    adjacent(range.host_ports.last, next.host_ports.first)
        && adjacent(range.container_ports().last, next.container_port)
        && (
            range.host_ip,
            range.protocol,
            range.container_ip,
            range.declined,
        ) == (
            next.host_ip,
            next.protocol,
            next.container_ip,
            next.declined,
        )
        && range.name == next.name
}
