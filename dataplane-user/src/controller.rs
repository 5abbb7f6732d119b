//! The loop of `portway run`: whatever happens, look at everything again and bring it to what is wanted.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context as _, bail};
use tokio::{
    sync::watch::channel,
    time::{Instant, interval, sleep_until},
};

use crate::{
    admission,
    announce::Announcer,
    collector::Collector,
    desired,
    docker::{Endpoint, Provider, Snapshot},
    firewall::watch::{Report, watch},
    hooks,
    instance::Lock,
    netlink::watch::{Change, Interest, Watch},
    output::say,
    publication::Source,
    reconcile::{Desired, Outcome, Reconciler},
    rows::{self, Row},
    signals::Signals,
    trace::Trace,
};

/// How long to wait for more of the kernel's notifications before the next look: a container's start alone
/// brings some twenty.
const SETTLING: Duration = Duration::from_millis(5);

/// How long after a look the next one comes by itself while a container is waited for: soon at first, as
/// most are about to come up, then ever later.
const FIRST_RETRY: Duration = Duration::from_millis(10);
const LAST_RETRY: Duration = Duration::from_secs(1);

/// How long after a look the next one comes by itself, in case a notification was lost.
const RESYNC: Duration = Duration::from_secs(10);

/// How long another command may keep a look waiting before it is put off.
const LOCK_PATIENCE: Duration = Duration::from_millis(200);

/// How often the programs' messages are collected.
const TRACE_INTERVAL: Duration = Duration::from_millis(100);

/// How the external interfaces are chosen.
#[derive(Debug, Clone)]
pub enum External {
    /// These, by name; one that goes away is attached again when it is back.
    Named(Vec<String>),
    /// Those that default routes lead to, now or earlier in the life of this load.
    DefaultRoutes,
    /// Those that were attached when this process came.
    Adopted(BTreeSet<u32>),
}

/// The controller of one instance.
pub struct Controller {
    reconciler: Reconciler,
    external: External,
    interest: Interest,
    load_id: Option<u64>,
    docker: Option<Snapshot>,
    /// What was last heard of the firewall.
    firewall: Option<Report>,
    /// How many changes of its rules have been taken into account.
    rule_changes: u64,
    /// Whether `docker` has not been brought about yet.
    is_fresh: bool,
    /// Whether links, addresses or routes have changed since flows were last told to look.
    topology_changed: bool,
    announcer: Announcer,
    trace: Option<Trace>,
}

impl Controller {
    /// For an instance that is loaded.
    pub fn new(reconciler: Reconciler, external: External) -> Self {
        Self {
            load_id: reconciler.instance.load_id(),
            reconciler,
            external,
            interest: Interest::default(),
            docker: None,
            firewall: None,
            rule_changes: 0,
            is_fresh: false,
            topology_changed: false,
            announcer: Announcer::default(),
            trace: None,
        }
    }

    /// Prints what the programs tell of new flows, too.
    pub fn print_trace(&mut self) -> anyhow::Result<()> {
        self.trace = Some(Trace::start(&self.reconciler.instance)?);
        Ok(())
    }

    /// Follows Docker, if there is an `endpoint`, the firewall and the kernel until a signal comes.
    ///
    /// # Errors
    ///
    /// What makes it pointless to go on: the instance has been unloaded by somebody else, or the kernel's
    /// notifications have ended.
    pub async fn run(
        mut self,
        endpoint: Option<Endpoint>,
        signals: &mut Signals,
    ) -> anyhow::Result<()> {
        // Before the first look, so that nothing is missed in between.
        let mut changes = Watch::start()?;
        let _collector = Collector::start(&self.reconciler.instance, self.load_id)?;
        let (report_sender, mut reports) = channel(None);
        tokio::spawn(watch(report_sender));
        let (sender, mut snapshots) = channel(None);
        // Without Docker the channel stays open and silent.
        let _idle = match endpoint {
            Some(endpoint) => {
                say(format_args!("following Docker at {endpoint}"));
                tokio::spawn(Provider::new(endpoint).run(sender));
                None
            }
            None => Some(sender),
        };
        let mut trace_tick = interval(TRACE_INTERVAL);
        let mut next_look = Instant::now();
        let mut retry = FIRST_RETRY;

        loop {
            tokio::select! {
                biased;
                () = signals.next() => return Ok(()),
                Ok(()) = reports.changed() => {
                    self.firewall.clone_from(&reports.borrow_and_update());
                }
                Ok(()) = snapshots.changed() => {
                    let snapshot = snapshots.borrow_and_update().clone();
                    self.take(snapshot);
                    retry = FIRST_RETRY;
                }
                change = changes.next() => {
                    let change = change.context("the kernel's notifications have ended")?;
                    if self.interest.concerns(&change) {
                        self.topology_changed |= change == Change::Topology;
                        next_look = next_look.min(Instant::now() + SETTLING);
                    }
                    // However many come, they do not keep the look away.
                    if Instant::now() < next_look {
                        continue;
                    }
                }
                _ = trace_tick.tick(), if self.trace.is_some() => {
                    if let Some(trace) = &mut self.trace {
                        trace.print();
                    }
                    continue;
                }
                () = sleep_until(next_look) => {}
            }
            let is_settled = self.look().await?;
            if retry >= LAST_RETRY && self.announcer.has_untold() {
                let rows = rows::read(&self.reconciler.dataplane)?;
                self.announcer.tell_pending(&rows);
            }
            next_look = Instant::now() + if is_settled { RESYNC } else { retry };
            retry = (retry * 2).min(LAST_RETRY);
        }
    }

    /// Takes what Docker says. What it says of one event may come in several parts.
    fn take(&mut self, snapshot: Option<Snapshot>) {
        let event_time = self.docker.take().and_then(|docker| docker.event_time);
        self.is_fresh = true;
        self.docker = snapshot.map(|snapshot| Snapshot {
            event_time: snapshot.event_time.or(event_time),
            ..snapshot
        });
    }

    /// One look at everything. Returns whether nothing is left to be done or waited for.
    async fn look(&mut self) -> anyhow::Result<bool> {
        let Some(lock) = self.lock().await? else {
            return Ok(false);
        };
        let rows = rows::read(&self.reconciler.dataplane)?;
        self.admit(&rows)?;
        if self.topology_changed {
            self.reconciler.advance_epoch()?;
            self.topology_changed = false;
        }
        match self.reconcile(&lock, rows).await {
            Ok(outcome) => {
                self.is_fresh = false;
                self.interest = outcome.interest;
                let event_time = self.docker.as_ref().and_then(|docker| docker.event_time);
                self.announcer.tell(outcome.events, event_time);
                // What happens after all has come to rest is no longer Docker's event's doing.
                if outcome.pending == 0
                    && let Some(docker) = &mut self.docker
                {
                    docker.event_time = None;
                }
                Ok(outcome.pending == 0)
            }
            // What was done is whole in itself; the next look goes on.
            Err(error) => {
                tracing::warn!("{error:#}; trying again");
                Ok(false)
            }
        }
    }

    async fn reconcile(&mut self, lock: &Lock, rows: Vec<Row>) -> anyhow::Result<Outcome> {
        let (docker, fixed): (Vec<_>, Vec<_>) = rows
            .into_iter()
            .map(|row| row.publication)
            .partition(|publication| publication.source == Source::Docker);
        // Until Docker has spoken, what an earlier process has learned from it holds.
        let docker = match &self.docker {
            Some(snapshot) => snapshot.publications.clone(),
            None => docker,
        };
        let desired = Desired {
            publications: desired::desired(&docker, &fixed),
            external: self.external_interfaces().await?,
            is_fresh: self.is_fresh,
        };
        self.reconciler.reconcile(lock, desired).await
    }

    async fn external_interfaces(&self) -> anyhow::Result<BTreeSet<u32>> {
        match &self.external {
            External::DefaultRoutes => {
                let mut interfaces = self.reconciler.netlink.default_interfaces().await?;
                // A default route may go for a moment, or for good, with clients still coming: what was
                // external stays so while it is there.
                let external = hooks::external(&self.reconciler.dataplane)?;
                interfaces.extend(external.iter().map(|there| there.ifindex));
                Ok(interfaces)
            }
            External::Adopted(interfaces) => Ok(interfaces.clone()),
            External::Named(names) => Ok(names
                .iter()
                .filter_map(|name| hooks::interface_index(name).ok())
                .collect()),
        }
    }

    /// Lets the firewall's rules have their say.
    fn admit(&mut self, rows: &[Row]) -> anyhow::Result<()> {
        let Some(report) = &self.firewall else {
            return Ok(());
        };
        let dataplane = &mut self.reconciler.dataplane;
        if report.changes != self.rule_changes {
            admission::end_leases(dataplane)?;
            self.rule_changes = report.changes;
        }
        let request = admission::requested(dataplane)?;
        let decision = admission::by_rules(request, &report.verdict, rows);
        if admission::enforce(dataplane, request, &decision)? {
            say(format_args!(
                "admission {}: {}",
                decision.word(),
                decision.why
            ));
        }
        Ok(())
    }

    /// Takes the instance's lock; none if another command holds it for too long, which is for later.
    ///
    /// # Errors
    ///
    /// It is no longer the load this process knows.
    async fn lock(&self) -> anyhow::Result<Option<Lock>> {
        let lock = match self.reconciler.instance.lock_within(LOCK_PATIENCE).await {
            Ok(lock) => lock,
            Err(error) => {
                tracing::debug!("{error:#}");
                return Ok(None);
            }
        };
        if self.reconciler.instance.load_id() != self.load_id {
            bail!("portway has been unloaded by another command: nothing left to do here");
        }
        Ok(Some(lock))
    }
}
