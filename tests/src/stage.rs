//! A scenario's stage: plays it without portway, then with it, and compares what was seen.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

use crate::{
    daemon::Daemon,
    docker::{self, DockerLab},
    footprint::{self, Footprint},
    pass::{Pass, Seen},
    portway::{Portway, Status, Used},
    report::Report,
    wait::{self, PATIENCE},
};

/// What a scenario plays on.
#[derive(Debug)]
pub struct Stage<'a> {
    /// The lab with its Docker.
    pub lab: &'a DockerLab,
    /// Who hears of it.
    pub report: &'a mut Report,
}

impl<'b> Stage<'b> {
    /// A stage in `lab`.
    pub fn new(lab: &'b DockerLab, report: &'b mut Report) -> Self {
        Self { lab, report }
    }

    /// Says and runs a `docker` command.
    ///
    /// # Errors
    /// With what Docker said.
    pub fn docker(&mut self, args: &str) -> Result<String> {
        self.report.command(&format!("docker {args}"));
        docker::docker(&self.lab.host, args)
    }

    /// Removes containers, as a scenario's last act.
    ///
    /// # Errors
    /// With what Docker said.
    pub fn remove(&mut self, containers: &str) -> Result<()> {
        docker::docker(
            &self.lab.host,
            &format!("rm --force --volumes {containers}"),
        )?;
        Ok(())
    }

    /// Says and runs `portway run`, until [`Stage::end_portway`]. It has to find the external interface
    /// and Docker's socket by itself, as on a user's machine.
    ///
    /// # Errors
    /// It does not start.
    pub fn start_portway(&mut self, portway: &Portway<'b>) -> Result<Daemon> {
        self.report.command("portway run");
        portway.command("run").start()
    }

    /// Ends it with Ctrl-C and looks that nothing remains.
    ///
    /// # Errors
    /// It does not end well, or something remains.
    pub fn end_portway(&mut self, portway: &Portway<'b>, run: &Daemon) -> Result<()> {
        let footprint = Footprint::of(&self.lab.host)?;
        ensure!(
            footprint.programs() > 0,
            "no program found loaded: {footprint}"
        );
        portway.interrupt(run)?;
        footprint.wait_gone(&self.lab.host)?;
        self.report.seen(
            "Ctrl-C",
            "programs, links, maps, pins, qdiscs of portway",
            "none left",
        );
        Ok(())
    }

    /// Makes `checks` without portway, then with `portway run`, and demands that both passes see the
    /// same, that what came from outside took the fast path, and that nothing remains.
    ///
    /// # Errors
    /// Anything else; `checks`' own.
    pub fn without_and_with(
        &mut self,
        checks: impl Fn(&mut Pass<'_, 'b>) -> Result<()>,
    ) -> Result<()> {
        let host = &self.lab.host;
        footprint::ensure_none(host)?;
        let mut without = Pass::new(self, None);
        checks(&mut without).context("without portway")?;
        without.report_slow_path();
        let Pass { seen, reached, .. } = without;

        let portway = Portway::new(host)?;
        let run = self.start_portway(&portway)?;
        let result = self.with_portway(&portway, &seen, &reached, &checks);
        result.with_context(|| format!("with portway; it says:\n{}", run.said()))?;
        self.report.command("what portway run has said meanwhile");
        self.report.quote(&run.said());
        self.end_portway(&portway, &run)
    }

    fn with_portway(
        &mut self,
        portway: &Portway<'b>,
        seen_without: &[Seen],
        reached: &BTreeMap<u16, u64>,
        checks: &impl Fn(&mut Pass<'_, 'b>) -> Result<()>,
    ) -> Result<()> {
        let before = wait_loaded(portway)?;
        for port in reached.keys() {
            portway.wait_active("tcp", *port)?;
        }
        let mut with = Pass::new(self, Some(portway));
        checks(&mut with)?;
        with.report_slow_path();
        let Pass { seen, reached, .. } = with;
        ensure!(
            seen == seen_without,
            "another outcome than without portway:\n{seen:#?}\nwithout it:\n{seen_without:#?}"
        );
        let what = "outcomes without and with portway";
        let outcome = format!("{} of {} equal", seen.len(), seen_without.len());
        self.report.seen("compared", what, &outcome);
        let status = portway.status()?;
        let used = status.since(&before);
        if reached.is_empty() {
            ensure!(
                used == Used::NOTHING,
                "the fast path took packets, though none were portway's: {used:?}"
            );
            self.report
                .seen("with portway", "fast path", "not touched, as it should be");
        } else {
            ensure!(used.both_ways(), "the fast path was not used: {used:?}");
            let expected = self.lab.docker.engine().admission();
            let admission = status.admission.context("no admission")?;
            ensure!(
                admission.mode == expected,
                "not {expected} but {admission:?}"
            );
            let Used {
                forwarded, replied, ..
            } = used;
            let outcome = format!("{forwarded} packets forwarded, {replied} replied");
            self.report.seen("with portway", "fast path", &outcome);
        }
        self.report.command("portway ls");
        self.report.quote(&portway.text("ls")?);
        self.report.command("portway status");
        self.report.quote(&portway.text("status")?);
        Ok(())
    }
}

/// Waits until a `portway run` has loaded.
fn wait_loaded(portway: &Portway<'_>) -> Result<Status> {
    wait::until("portway being loaded", PATIENCE, || {
        Ok(portway.status().ok().filter(|status| status.loaded))
    })
}
