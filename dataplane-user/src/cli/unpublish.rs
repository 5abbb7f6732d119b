//! `portway unpublish`.

use anyhow::{anyhow, bail};

use super::{UsageError, load::external_interfaces};
use crate::{
    instance::Instance,
    output::say,
    publication::{Publication, Source},
    reconcile::{Desired, Reconciler},
    rows,
    spec::Unpublish,
};

/// Takes back a static publication.
pub async fn unpublish(instance: Instance, spec: &str) -> anyhow::Result<()> {
    let unpublish = Unpublish::parse(spec).map_err(|error| UsageError(anyhow!(error)))?;
    let lock = instance.lock().await?;
    let mut reconciler = Reconciler::open(instance)?;
    let is_meant = |there: &Publication| {
        there.source == Source::Static
            && unpublish.is_on(there)
            && there.host_ports == unpublish.host_ports
    };
    let (matching, others): (Vec<_>, Vec<_>) = rows::read(&reconciler.dataplane)?
        .into_iter()
        .map(|row| row.publication)
        .partition(is_meant);
    if matching.is_empty() {
        bail!("{}", why_not(spec, &unpublish, &others));
    }
    let desired = Desired {
        publications: others,
        external: external_interfaces(&reconciler, &[]).await?,
        is_fresh: false,
    };
    reconciler.reconcile(&lock, desired).await?;
    for there in matching {
        say(format_args!("{there}: no longer published"));
    }
    Ok(())
}

/// Why there is nothing to take back.
fn why_not(spec: &str, unpublish: &Unpublish, there: &[Publication]) -> String {
    let shared = there.iter().find(|there| {
        let ports = there.host_ports.first_shared(unpublish.host_ports);
        unpublish.is_on(there) && ports.is_some()
    });
    match shared {
        Some(there) if there.source == Source::Docker => format!(
            "{there} is published by Docker for container {}: stop the container",
            there.name
        ),
        Some(there) => format!(
            "{there} is published as a whole: take back {}",
            there.host_ports
        ),
        None => format!("nothing is published on {spec}: `portway ls` lists what is"),
    }
}
