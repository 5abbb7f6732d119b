//! `portway run`.

use anyhow::anyhow;

use super::{
    args::RunArgs,
    load::{Origin, bring_up, open_or_load},
    publish,
    unload::tear_down,
};
use crate::{
    controller::{Controller, External},
    docker::Endpoint,
    hooks,
    instance::{Instance, Lock},
    output::say,
    publication::Publication,
    reconcile::Reconciler,
    rows,
    signals::Signals,
};

/// Loads if need be, follows Docker and prints what happens. `args` are complete.
pub async fn run(instance: Instance, args: RunArgs) -> anyhow::Result<()> {
    let publications = args
        .publish
        .iter()
        .map(|spec| publish::parse(spec))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let endpoint = endpoint(&args)?;

    let mut signals = Signals::catch()?;
    let lock = instance.lock().await?;
    let (mut reconciler, origin) = open_or_load(&instance, &lock, &args.load).await?;
    let is_to_be_unloaded =
        || origin == Origin::Loaded || (args.unload_at_end && !instance.is_watched());
    let mut is_interrupted = false;
    let started = tokio::select! {
        result = start(&mut reconciler, &lock, &args, publications) => result,
        () = signals.next() => {
            is_interrupted = true;
            Err(anyhow!("interrupted"))
        }
    };
    let external = match started {
        Ok(external) => external,
        Err(error) => {
            // Who cannot begin leaves alone what others have loaded.
            if origin == Origin::Loaded || (is_interrupted && is_to_be_unloaded()) {
                tear_down(&instance, &lock).await?;
            }
            return Err(error);
        }
    };
    if origin == Origin::Upgraded {
        say("upgraded what another build had loaded, with its flows");
    }
    let load_id = instance.load_id();
    let watching = instance.watch()?;
    drop(lock);
    let mut controller = Controller::new(reconciler, external);
    let result = match args.load.trace.then(|| controller.print_trace()) {
        Some(Err(error)) => Err(error),
        _ => controller.run(endpoint, &mut signals).await,
    };
    drop(watching);
    if !is_to_be_unloaded() {
        say("left loaded, as it was found");
        return result;
    }
    let lock = instance.lock().await?;
    // Another command may have unloaded it, or loaded it anew; then it is not ours any more.
    if instance.load_id() == load_id {
        let flows = tear_down(&instance, &lock).await?;
        say(format_args!("unloaded{flows}"));
    }
    result
}

fn endpoint(args: &RunArgs) -> anyhow::Result<Option<Endpoint>> {
    if args.no_docker {
        return Ok(None);
    }
    let endpoint = Endpoint::find(args.docker.as_deref())?;
    if let Some(endpoint) = &endpoint {
        endpoint.check()?;
    }
    Ok(endpoint)
}

/// Brings a load up, publishes what the command line names, and tells how external interfaces are chosen
/// from now on.
async fn start(
    reconciler: &mut Reconciler,
    lock: &Lock,
    args: &RunArgs,
    publications: Vec<Publication>,
) -> anyhow::Result<External> {
    let summary = bring_up(reconciler, lock, &args.load).await?;
    say(format_args!(
        "portway {}: {summary}",
        env!("CARGO_PKG_VERSION")
    ));
    let record = reconciler.dataplane.read_record()?;
    let external = if !args.load.external.is_empty() {
        External::Named(args.load.external.clone())
    } else if record.follows_default_routes == 1 {
        External::DefaultRoutes
    } else {
        External::Adopted(
            hooks::external(&reconciler.dataplane)?
                .into_iter()
                .map(|attached| attached.ifindex)
                .collect(),
        )
    };
    for publication in publications {
        let rows = rows::read(&reconciler.dataplane)?;
        if rows.iter().any(|row| row.publication == publication) {
            // Adopted along with the load.
            continue;
        }
        publish::check_free(&publication, &rows)?;
        reconciler.add_row(lock, &publication)?;
    }
    Ok(external)
}
