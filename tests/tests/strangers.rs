//! A client that the host has never met: it has no neighbour entry for it when its first packet comes.

use std::{net::SocketAddr, process::ExitCode};

use anyhow::{Context, Result, anyhow};
use portway_tests::{
    container::Container,
    conversation,
    harness::{self, Test},
    lab::{CLIENTS, EXTERNAL, HOST, Lab},
    portway::Portway,
};

fn main() -> ExitCode {
    harness::run([
        Test::of_portway("a_stranger_over_tcp", || {
            meet(|source, target| conversation::bulk_echo(source, target, 1 << 20))
        }),
        Test::of_portway("a_stranger_over_udp", || {
            meet(|source, target| {
                conversation::udp_echo(source, target, 5, 100)
                    .map(drop)
                    .map_err(|silence| anyhow!("{silence}"))
            })
        }),
    ])
}

/// Has a client that the host does not know yet speak first.
fn meet(talk: impl FnOnce(Option<SocketAddr>, SocketAddr) -> Result<()> + Send) -> Result<()> {
    let lab = Lab::new()?;
    let web = Container::new(&lab.host, 1)?.serve(&["tcp/8081", "udp/8081"])?;
    let portway = Portway::new(&lab.host)?;
    portway.load("--admission direct")?;
    let spec = format!("9001:{}:8081", web.address);
    portway.publish(&spec)?;
    portway.publish(&format!("{spec}/udp"))?;
    // The client knows the host and need not ask, so the host does not hear of it before.
    let link = lab.host.ip(&format!("-o link show {EXTERNAL}"))?;
    let mac = link
        .split_whitespace()
        .skip_while(|word| *word != "link/ether")
        .nth(1)
        .context("no MAC address")?;
    lab.client.ip(&format!(
        "neigh replace {HOST} lladdr {mac} dev eth0 nud permanent"
    ))?;
    lab.host.ip(&format!("neigh flush dev {EXTERNAL}"))?;
    let source = conversation::from_address(CLIENTS[3]);
    let target = SocketAddr::from((HOST, 9001));
    lab.client
        .run(|| talk(source, target))
        .with_context(|| portway.text("status").unwrap_or_default())
}
