//! `run --trace` prints every new flow, as it looks from outside and inside.

use std::{process::ExitCode, time::Duration};

use anyhow::{Result, ensure};
use portway_tests::{
    container::Container,
    conversation,
    harness::{self, Test},
    lab::{CLIENTS, HOST, Lab},
    portway::Portway,
};

/// How long a line may take to be printed.
const LIMIT: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    harness::run([Test::of_portway("new_flows_are_printed", new_flows)])
}

fn new_flows() -> Result<()> {
    let lab = Lab::new()?;
    let web = Container::new(&lab.host, 1)?.serve(&["http/8080"])?;
    let portway = Portway::new(&lab.host)?;
    let run = portway.run(&format!(
        "--no-docker --admission direct --trace --publish 9000:{}:8080",
        web.address
    ))?;
    portway.wait_active("tcp", 9000)?;
    let source = conversation::from_address(CLIENTS[0]);
    let target = format!("{HOST}:9000");
    let answer = lab
        .client
        .run(|| Ok(conversation::http_get(source, &target)))?;
    ensure!(answer.is_ok(), "{answer:?}");
    let part = format!("to {HOST}:9000 goes to {}:8080", web.address);
    let line = run.line(&part, LIMIT)?;
    ensure!(
        line.text.contains(&format!(" {}:", CLIENTS[0])),
        "{}",
        line.text
    );
    portway.interrupt(&run)
}
