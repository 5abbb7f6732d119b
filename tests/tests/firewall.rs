//! What the host's firewall keeps out stays out, portway or not.

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use portway_tests::{
    conversation::{self, Silence, echo_over},
    docker::{self, DockerLab},
    harness::{self, Test},
    image::GUEST,
    lab::{CLIENTS, HOST},
    portway::Portway,
    wait::{self, PATIENCE},
};

fn main() -> ExitCode {
    harness::run([
        Test::with_docker("a_rule_of_the_users_keeps_its_say", there_before),
        // Which begins with direct admission, and podman's rules allow none.
        Test::with_dockerd("a_rule_added_while_portway_runs_takes_effect", added_later),
    ])
}

/// A way for a firewall to shut one client out: what it is like, and the commands that make it so and
/// undo it. `CLIENT` stands for the client, `USERS` for the chain that is the user's own.
struct Way {
    name: &'static str,
    make: &'static str,
    undo: &'static str,
}

/// The first is where the engine's documentation has users put their rules.
const WAYS: [Way; 7] = [
    Way {
        name: "the user's chain",
        make: "iptables -w -I USERS -s CLIENT -j DROP",
        undo: "iptables -w -D USERS -s CLIENT -j DROP",
    },
    Way {
        name: "mangle FORWARD",
        make: "iptables -w -t mangle -I FORWARD -s CLIENT -j DROP",
        undo: "iptables -w -t mangle -D FORWARD -s CLIENT -j DROP",
    },
    Way {
        name: "raw PREROUTING",
        make: "iptables -w -t raw -I PREROUTING -s CLIENT -j DROP",
        undo: "iptables -w -t raw -D PREROUTING -s CLIENT -j DROP",
    },
    Way {
        name: "replies only",
        make: "iptables -w -I USERS -d CLIENT -j DROP",
        undo: "iptables -w -D USERS -d CLIENT -j DROP",
    },
    Way {
        name: "chains as ufw has them",
        make: "iptables -w -N ufw-before-forward && iptables -w -N ufw-user-forward \
               && iptables -w -A ufw-user-forward -s CLIENT -j DROP \
               && iptables -w -A ufw-before-forward -j ufw-user-forward \
               && iptables -w -I FORWARD -j ufw-before-forward",
        undo: "iptables -w -D FORWARD -j ufw-before-forward \
               && iptables -w -F ufw-before-forward && iptables -w -X ufw-before-forward \
               && iptables -w -F ufw-user-forward && iptables -w -X ufw-user-forward",
    },
    Way {
        name: "a table as firewalld has it",
        make: "nft 'table inet firewalld { \
               chain filter_FORWARD { type filter hook forward priority filter + 10; policy accept; \
               ct state { established, related } accept; jump filter_FORWARD_ZONES; }; \
               chain filter_FORWARD_ZONES { ip saddr CLIENT goto filter_FWD_drop; }; \
               chain filter_FWD_drop { drop; }; }'",
        undo: "nft delete table inet firewalld",
    },
    Way {
        name: "a plain nft chain at prerouting",
        make: "nft 'table ip guard { \
               chain early { type filter hook prerouting priority -350; ip saddr CLIENT drop; }; }'",
        undo: "nft delete table ip guard",
    },
];

fn play(lab: &DockerLab, commands: &str) -> Result<()> {
    let commands = commands
        .replace("CLIENT", &CLIENTS[1].to_string())
        .replace("USERS", lab.docker.engine().users_chain());
    lab.host.command("sh").args(["-c", &commands]).text()?;
    Ok(())
}

fn there_before() -> Result<()> {
    let lab = DockerLab::new()?;
    docker::docker(&lab.host, "run -d --name web -p 9000:8080 echo")?;
    for way in &WAYS {
        shut_out_from_the_start(&lab, way).with_context(|| way.name)?;
    }
    Ok(())
}

fn shut_out_from_the_start(lab: &DockerLab, way: &Way) -> Result<()> {
    play(lab, way.make)?;
    let portway = Portway::new(&lab.host)?;
    let run = portway.run_with_docker("")?;
    portway.wait_active("tcp", 9000)?;
    let ((), used) = portway.measure(|| expect_shut_out(lab))?;
    ensure!(used.both_ways(), "nobody is accelerated: {used:?}");
    let admission = portway.status()?.admission;
    ensure!(
        admission
            .as_ref()
            .is_some_and(|admission| admission.mode == "netfilter" && !admission.why.is_empty()),
        "{admission:?}"
    );
    portway.interrupt(&run)?;
    expect_shut_out(lab)?;
    play(lab, way.undo)
}

fn added_later() -> Result<()> {
    let lab = DockerLab::new()?;
    docker::docker(
        &lab.host,
        &format!(
            "run -d --name web -p 9000:8080 -p 9001:8081 echo {GUEST} serve http/8080 tcp/8081"
        ),
    )?;
    let portway = Portway::new(&lab.host)?;
    let run = portway.run_with_docker("")?;
    portway.wait_active("tcp", 9000)?;
    portway.wait_active("tcp", 9001)?;
    let (mut connection, used) = portway.measure(|| {
        ensure!(
            lab.get_from(CLIENTS[1], (HOST, 9000)).is_ok(),
            "shut out too early"
        );
        lab.client.run(|| {
            let source = conversation::from_address(CLIENTS[1]);
            Ok(conversation::connect(source, (HOST, 9001).into())?)
        })
    })?;
    echo_over(&mut connection, "before")?;
    ensure!(
        used.both_ways(),
        "not the fast path to begin with: {used:?}"
    );

    play(&lab, WAYS[0].make)?;
    wait::until_true("the end of direct admission", PATIENCE, || {
        let admission = portway.status()?.admission;
        Ok(admission.is_some_and(|admission| admission.mode != "direct"))
    })?;
    expect_shut_out(&lab)?;
    ensure!(
        echo_over(&mut connection, "after").is_err(),
        "a connection of the client that was shut out goes on"
    );

    // The way back.
    play(&lab, WAYS[0].undo)?;
    wait::until_true("direct admission again", PATIENCE, || {
        let admission = portway.status()?.admission;
        Ok(admission.is_some_and(|admission| admission.mode == "direct"))
    })?;
    let (answer, used) = portway.measure(|| Ok(lab.get_from(CLIENTS[1], (HOST, 9000))))?;
    ensure!(answer.is_ok() && used.both_ways(), "{answer:?}, {used:?}");
    portway.interrupt(&run)
}

/// One client gets no answer, another does.
fn expect_shut_out(lab: &DockerLab) -> Result<()> {
    let shut_out = lab.get_from(CLIENTS[1], (HOST, 9000));
    ensure!(shut_out == Err(Silence::NoAnswer), "let in: {shut_out:?}");
    let other = lab.get_from(CLIENTS[0], (HOST, 9000));
    ensure!(other.is_ok(), "another client is shut out too: {other:?}");
    Ok(())
}
