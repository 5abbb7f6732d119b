//! A compose file: a service published on one port, reached on another inside its networks.

use std::fs;

use anyhow::{Context, Result, ensure};

use super::Scenario;
use crate::{
    docker::{self, SOCKET},
    guest::GREETING,
    host::Host,
    image::GUEST,
    process::Cmd,
    stage::Stage,
};

pub(super) const SCENARIO: Scenario = Scenario {
    number: 5,
    name: "compose",
    title: "A compose file with a published service and two networks",
    play,
};

/// The compose file. It is found by the demo's reader, so it looks like one of theirs.
const FILE: &str = "\
version: '3'
services:
  nginx:
    image: echo
    container_name: nginx
    command: [GUEST, serve, http/80]
    ports: ['8080:80']
    networks: [mynetwork, default]
    stop_grace_period: 1s
  client1:
    image: echo
    container_name: client1
    networks: [mynetwork]
  client2:
    image: echo
    container_name: client2
    networks: [default]
networks:
  mynetwork:
";

/// Where it is, in the host.
const FOLDER: &str = "/run/shop";

fn play(stage: &mut Stage<'_>) -> Result<()> {
    let host = &stage.lab.host;
    let engine = stage.lab.docker.engine();
    let compose = Compose::find(host);
    fs::create_dir_all(host.file(FOLDER))?;
    let file = FILE.replace("GUEST", GUEST);
    fs::write(host.file(FOLDER).join("docker-compose.yml"), &file)?;
    match &compose {
        Some(compose) => {
            stage.report.quote(&file);
            stage.report.command(&format!("{compose} up -d"));
            compose.command(host, "up -d").text()?;
        }
        None => by_hand(stage)?,
    }
    for service in ["nginx", "client1", "client2"] {
        docker::wait_serving(&stage.lab.host, service)?;
    }
    stage.without_and_with(|pass| {
        for client in ["client1", "client2"] {
            pass.inside(client, "nginx:80", "nginx:80", GREETING)?;
            pass.inside(client, "nginx:8080", "nginx:8080", "refused")?;
        }
        pass.on_host("localhost:80", "refused")?;
        pass.on_host("localhost:8080", GREETING)?;
        if engine.answers_by_the_publishing_network() {
            pass.outside(8080, GREETING)?;
        } else {
            pass.outside_left_alone(8080, GREETING)?;
        }
        pass.outside_left_alone(80, "refused")?;
        let Some(portway) = pass.portway() else {
            return Ok(());
        };
        let port = portway
            .port("tcp", 8080)?
            .context("portway has no port 8080")?;
        let host = &pass.lab().host;
        let networks = ["shop_mynetwork", "shop_default"];
        let addresses = networks.map(|network| docker::address(host, "nginx", network).ok());
        let is_nginx = addresses
            .into_iter()
            .flatten()
            .any(|address| address.to_string() == port.container_ip);
        ensure!(
            port.host_ip == "0.0.0.0" && port.container_port == 80 && is_nginx,
            "not 0.0.0.0:8080 -> nginx:80 but {port:?}"
        );
        ensure!(port.state == "active", "not active: {port:?}");
        Ok(())
    })?;
    match &compose {
        Some(compose) => {
            stage.report.command(&format!("{compose} down"));
            compose
                .command(&stage.lab.host, "down -t 1")
                .text()
                .map(drop)
        }
        None => {
            stage.remove("nginx client1 client2")?;
            stage
                .docker("network rm shop_mynetwork shop_default")
                .map(drop)
        }
    }
}

/// Docker compose, in whichever form the machine has it.
#[derive(Debug, Clone, Copy)]
enum Compose {
    /// `docker compose`, since 2021.
    Plugin,
    /// `docker-compose`, before.
    Program,
}

impl Compose {
    fn find(host: &Host) -> Option<Self> {
        [Self::Plugin, Self::Program].into_iter().find(|compose| {
            let version = compose.command(host, "version").output();
            version.is_ok_and(|version| version.status.success())
        })
    }

    fn command(self, host: &Host, args: &str) -> Cmd {
        let command = match self {
            Self::Plugin => docker::command(host, "compose"),
            Self::Program => host
                .command("docker-compose")
                .env("DOCKER_HOST", format!("unix://{SOCKET}")),
        };
        command
            .args(["--project-name", "shop"])
            .args(["--file", &format!("{FOLDER}/docker-compose.yml")])
            .args(args.split_whitespace())
    }
}

impl std::fmt::Display for Compose {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Plugin => "docker compose",
            Self::Program => "docker-compose",
        })
    }
}

/// What compose would do, on a machine without it.
fn by_hand(stage: &mut Stage<'_>) -> Result<()> {
    stage
        .report
        .note("no docker compose on this machine: the same by hand");
    stage.docker("network create shop_mynetwork")?;
    stage.docker("network create shop_default")?;
    stage.docker(&format!(
        "create --name nginx --network shop_mynetwork -p 8080:80 echo {GUEST} serve http/80"
    ))?;
    stage.docker("network connect shop_default nginx")?;
    stage.docker("start nginx")?;
    stage.docker("run -d --name client1 --network shop_mynetwork echo")?;
    stage.docker("run -d --name client2 --network shop_default echo")?;
    Ok(())
}
