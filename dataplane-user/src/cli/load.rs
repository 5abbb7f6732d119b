//! `portway load`.

use std::{collections::BTreeSet, fmt};

use anyhow::{anyhow, bail};
use dataplane_common::layout::DEFAULT_MAX_FLOWS;

use super::{args::LoadArgs, unload::tear_down};
use crate::{
    admission,
    attach::detach_unknown_filters,
    dataplane::{Dataplane, LoadOptions},
    hooks,
    instance::{Instance, Lock},
    netlink::Netlink,
    output::say,
    reconcile::{Desired, Reconciler},
    rows,
    signals::Signals,
    upgrade::upgrade,
    xdp::{
        choice::{Intake, Mode},
        external::forget_refusals,
        report::{Report, report},
    },
};

/// Attaches and pins the programs.
pub async fn load(instance: Instance, args: LoadArgs) -> anyhow::Result<()> {
    let mut signals = Signals::catch()?;
    let lock = instance.lock().await?;
    let (mut reconciler, origin) = open_or_load(&instance, &lock, &args).await?;
    let result = tokio::select! {
        result = bring_up(&mut reconciler, &lock, &args) => result,
        () = signals.next() => Err(anyhow!("interrupted")),
    };
    match result {
        Ok(summary) => {
            say(format_args!("{origin}: {summary}"));
            Ok(())
        }
        Err(error) => {
            if origin == Origin::Loaded {
                tear_down(&instance, &lock).await?;
            }
            Err(error)
        }
    }
}

/// Where what is loaded comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// This command has loaded it.
    Loaded,
    /// It was loaded by another build, whose programs have given way to this one's.
    Upgraded,
    /// It was there.
    Found,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loaded => "loaded",
            Self::Upgraded => "upgraded",
            Self::Found => "already loaded",
        })
    }
}

/// Opens what is loaded, upgraded if need be, or loads it.
pub async fn open_or_load(
    instance: &Instance,
    lock: &Lock,
    args: &LoadArgs,
) -> anyhow::Result<(Reconciler, Origin)> {
    if args.force && instance.remove_other_layouts(lock)? {
        detach_unknown_filters(&Netlink::connect()?).await?;
    }
    let is_loaded = instance.is_loaded()?;
    let (dataplane, origin) = if !is_loaded {
        // What an interrupted load has left.
        tear_down(instance, lock).await?;
        let options = LoadOptions {
            max_flows: args.max_flows.unwrap_or(DEFAULT_MAX_FLOWS),
            trace: args.trace,
        };
        (Dataplane::load(instance, lock, options)?, Origin::Loaded)
    } else {
        let mut dataplane = Dataplane::open(instance)?;
        check_options(&dataplane, args)?;
        if dataplane.is_of_another_build()? {
            upgrade(instance, lock, &mut dataplane)?;
            (dataplane, Origin::Upgraded)
        } else {
            (dataplane, Origin::Found)
        }
    };
    let prepared = Reconciler::new(instance.clone(), dataplane).and_then(|mut reconciler| {
        if let Some(preference) = args.tc_hook {
            reconciler.prefer(preference)?;
        }
        if let Some(intake) = args.intake {
            reconciler.set_intake(intake)?;
        }
        Ok(reconciler)
    });
    match prepared {
        Ok(reconciler) => Ok((reconciler, origin)),
        Err(error) => {
            if origin == Origin::Loaded {
                instance.remove_pins(lock)?;
            }
            Err(error)
        }
    }
}

/// Refuses options that are settled when an instance is loaded, and were settled otherwise.
fn check_options(dataplane: &Dataplane, args: &LoadArgs) -> anyhow::Result<()> {
    let options = dataplane.options()?;
    if let Some(max_flows) = args.max_flows.filter(|wanted| *wanted != options.max_flows) {
        bail!(
            "already loaded for {} flows: run `portway unload` first to have {max_flows}",
            options.max_flows
        );
    }
    if args.trace && !options.trace {
        bail!("already loaded without --trace: run `portway unload` first");
    }
    Ok(())
}

/// Decides on admission, attaches the external interfaces and completes a fresh load. Returns what there
/// is to say about it.
pub async fn bring_up(
    reconciler: &mut Reconciler,
    lock: &Lock,
    args: &LoadArgs,
) -> anyhow::Result<String> {
    let request = match args.admission {
        Some(request) => request,
        None => admission::requested(&reconciler.dataplane)?,
    };
    let decision = admission::decide(request, &rows::read(&reconciler.dataplane)?);
    let external = external_interfaces(reconciler, &args.external).await?;
    if !args.external.is_empty() {
        reconciler.set_follows_default_routes(false)?;
    } else if hooks::attached(&reconciler.dataplane)?.is_empty() {
        reconciler.set_follows_default_routes(true)?;
    }
    admission::enforce(&mut reconciler.dataplane, request, &decision)?;

    let published = rows::read(&reconciler.dataplane)?;
    let published = published.into_iter().map(|row| row.publication).collect();
    let desired = Desired {
        publications: published,
        external,
        is_fresh: false,
    };
    forget_refusals(&mut reconciler.dataplane)?;
    let before = reconciler.mode();
    if let Some(mode) = args.mode {
        reconciler.set_mode(mode)?;
    }
    reconciler.reconcile(lock, desired.clone()).await?;
    let interfaces = report(&reconciler.dataplane)?;
    if let Some(mode) = args.mode
        && let Err(error) = check_xdp(mode, &interfaces)
    {
        // As it was; a fresh load goes anyway.
        reconciler.set_mode(before)?;
        reconciler.reconcile(lock, desired).await?;
        return Err(error);
    }
    if args.intake == Some(Intake::Pass)
        && interfaces.iter().all(|report| report.xdp.mode != "native")
    {
        tracing::warn!("--intake pass is for native XDP, which no external interface has");
    }
    reconciler.instance.set_complete(lock)?;

    let interfaces: Vec<_> = interfaces
        .iter()
        .map(|report| format!("{} ({})", report.interface, report.hooks.join(", ")))
        .collect();
    Ok(format!(
        "{}; admission {}: {}",
        interfaces.join(", "),
        decision.word(),
        decision.why
    ))
}

/// Refuses a mode that was asked for where it is not to be had, and tells where something is in its way.
fn check_xdp(mode: Mode, interfaces: &[Report]) -> anyhow::Result<()> {
    if matches!(mode, Mode::Auto | Mode::Tc) {
        return Ok(());
    }
    for report in interfaces {
        let (name, why) = (&report.interface, &report.xdp.why);
        match report.declined {
            Some(declined) if declined.is_for_want_of_a_driver() => bail!(
                "no XDP on {name}: {why}: use --mode auto, or xdp-generic to have it after the driver"
            ),
            Some(_) => tracing::warn!("no XDP on {name}, but TC: {why}"),
            None => {}
        }
    }
    Ok(())
}

/// The interfaces clients come in by: those named; else those attached already; else those of the
/// default routes.
pub async fn external_interfaces(
    reconciler: &Reconciler,
    named: &[String],
) -> anyhow::Result<BTreeSet<u32>> {
    let mut external = BTreeSet::new();
    for name in named {
        external.insert(reconciler.netlink.external_interface(name).await?);
    }
    if !external.is_empty() {
        return Ok(external);
    }
    external.extend(
        hooks::external(&reconciler.dataplane)?
            .into_iter()
            .map(|attached| attached.ifindex)
            .filter(|ifindex| hooks::interface_name(*ifindex).is_ok()),
    );
    if !external.is_empty() {
        return Ok(external);
    }
    let mut unfit = None;
    for ifindex in reconciler.netlink.default_interfaces().await? {
        let name = hooks::interface_name(ifindex)?;
        match reconciler.netlink.external_interface(&name).await {
            Ok(ifindex) => {
                external.insert(ifindex);
            }
            // A VPN's, say, beside the one that clients come in by.
            Err(error) => unfit = Some(error),
        }
    }
    if let Some(error) = unfit.filter(|_| external.is_empty()) {
        return Err(
            error.context("the default route's interface will not do: name one with --external")
        );
    }
    if external.is_empty() {
        bail!(
            "there is no default route to tell where clients come from: name an interface with --external"
        );
    }
    Ok(external)
}
