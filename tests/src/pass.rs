//! One way through a scenario's checks, without portway or with it.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};

use crate::{
    conversation::{Answer, Silence},
    docker::{self, DockerLab},
    image::GUEST,
    iptables,
    lab::CLIENTS,
    portway::Portway,
    stage::Stage,
};

/// A check that was made and what came of it.
pub(crate) type Seen = (String, String);

/// One way through a scenario's checks.
#[derive(Debug)]
pub struct Pass<'a, 'b> {
    stage: &'a mut Stage<'b>,
    portway: Option<&'a Portway<'b>>,
    pub(crate) seen: Vec<Seen>,
    /// Host ports that were reached from outside through a publication, with the conversations of each
    /// that iptables has counted.
    pub(crate) reached: BTreeMap<u16, u64>,
}

impl<'a, 'b> Pass<'a, 'b> {
    pub(crate) fn new(stage: &'a mut Stage<'b>, portway: Option<&'a Portway<'b>>) -> Self {
        Self {
            stage,
            portway,
            seen: Vec::new(),
            reached: BTreeMap::new(),
        }
    }

    /// The lab.
    pub fn lab(&self) -> &'b DockerLab {
        self.stage.lab
    }

    /// portway, in the pass that has it.
    pub fn portway(&self) -> Option<&'a Portway<'b>> {
        self.portway
    }

    /// Says and runs a `docker` command.
    ///
    /// # Errors
    /// With what Docker said.
    pub fn docker(&mut self, args: &str) -> Result<String> {
        self.stage.docker(args)
    }

    /// Removes containers.
    ///
    /// # Errors
    /// With what Docker said.
    pub fn remove(&mut self, containers: &str) -> Result<()> {
        self.stage.remove(containers)
    }

    /// Waits, where portway runs, until it has this TCP port active.
    ///
    /// # Errors
    /// It does not come.
    pub fn settle(&self, port: u16) -> Result<()> {
        match self.portway {
            Some(portway) => portway.wait_active("tcp", port).map(drop),
            None => Ok(()),
        }
    }

    /// Says what only this pass has to show.
    pub fn also(&mut self, what: &str, outcome: &str) {
        self.stage.report.seen(self.name(), what, outcome);
    }

    /// What was seen, which must be `expected`.
    ///
    /// # Errors
    /// It does not.
    pub fn expect(&mut self, what: &str, expected: &str, outcome: &str) -> Result<()> {
        self.stage.report.seen(self.name(), what, outcome);
        ensure!(
            outcome.contains(expected),
            "{what}: {outcome:?}, expected {expected:?}"
        );
        self.seen.push((what.to_owned(), outcome.to_owned()));
        Ok(())
    }

    /// Reaches a published port from outside, and looks that the container saw the client itself.
    ///
    /// # Errors
    /// The answer is another.
    pub fn outside(&mut self, port: u16, expected: &str) -> Result<()> {
        let host = &self.lab().host;
        if !self.lab().docker.engine().counts_packets() {
            self.reached.entry(port).or_default();
            return self.outside_left_alone(port, expected);
        }
        let before = iptables::dnat_packets(host, "tcp", port)?.unwrap_or_default();
        self.outside_left_alone(port, expected)?;
        let after = iptables::dnat_packets(host, "tcp", port)?.unwrap_or_default();
        let counted = after - before;
        match self.portway {
            Some(_) => ensure!(
                counted == 0,
                "port {port} was reached through iptables' DNAT rule"
            ),
            // Else its standing still would not mean anything.
            None => ensure!(
                counted > 0,
                "iptables has not counted what went to port {port}"
            ),
        }
        *self.reached.entry(port).or_default() += counted;
        Ok(())
    }

    /// Says what iptables has counted.
    pub(crate) fn report_slow_path(&mut self) {
        if !self.lab().docker.engine().counts_packets() {
            return;
        }
        for (port, counted) in &self.reached {
            let what = format!("conversations by iptables' DNAT rule, tcp {port}");
            let outcome = counted.to_string();
            self.stage.report.seen(self.name(), &what, &outcome);
        }
    }

    /// What the report calls this pass.
    fn name(&self) -> &'static str {
        match self.portway {
            Some(_) => "with portway",
            None => "without portway",
        }
    }

    /// Tries a port from outside of which nothing takes the fast path: no publication leads to it, as a rule.
    ///
    /// # Errors
    /// The outcome is another.
    pub fn outside_left_alone(&mut self, port: u16, expected: &str) -> Result<()> {
        let client = CLIENTS[0];
        let outcome = self.lab().get_from_outside(port);
        if let Ok(answer) = &outcome {
            let seen = answer.client.map(|address| address.ip());
            ensure!(
                seen == Some(client.into()),
                "the container behind port {port} saw the client as {seen:?}, not {client}"
            );
        }
        self.expect(
            &format!("outside {client} -> host:{port}"),
            expected,
            &words(outcome),
        )
    }

    /// Has a process of the host itself fetch `target`.
    ///
    /// # Errors
    /// The outcome is another.
    pub fn on_host(&mut self, target: &str, expected: &str) -> Result<()> {
        let outcome = self.lab().get_on_host(target);
        self.expect(&format!("host -> {target}"), expected, &words(outcome))
    }

    /// Has a container fetch `target`, called `name` in the report.
    ///
    /// # Errors
    /// The outcome is another.
    pub fn inside(
        &mut self,
        container: &str,
        name: &str,
        target: &str,
        expected: &str,
    ) -> Result<()> {
        let command = format!("exec {container} {GUEST} get {target}");
        let outcome = docker::docker(&self.lab().host, &command)?;
        self.expect(&format!("{container} -> {name}"), expected, &outcome)
    }
}

/// An outcome in words that can be compared.
pub fn words(outcome: Result<Answer, Silence>) -> String {
    match outcome {
        Ok(answer) => answer.body,
        Err(silence) => silence.to_string(),
    }
}
